"""SQL written by people (`caviar sql`): it reads, whatever it says, and gives up in time."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from caviar.errors import QueryError
from caviar.storage import ddl
from caviar.storage.database import Database
from caviar.storage.version import prepare

_HINT = f"the views are {', '.join(ddl.VIEWS)}"

#: What SQLite may do for a statement of a user: compile a SELECT, read a column, call a function, recurse.
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}

_STEPS_BETWEEN_CLOCKS = 10_000


@dataclass(frozen=True, slots=True)
class SqlResult:
    """What a statement found: JSON columns are texts."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    #: Whether there were more rows than the limit.
    is_cut: bool


def run_sql(url: str, sql: str, *, limit: int = 1000, timeout_s: float = 30.0) -> SqlResult:
    """Run one statement that reads.

    Args:
        url: URL of the storage.
        sql: one statement, `select ...`, over the tables or, better, the views.
        limit: return at most so many rows.
        timeout_s: give up after so many seconds.

    Raises:
        QueryError: it writes, is more than one statement, is not valid, or takes too long.
        StorageError: the database cannot be read.
    """
    if limit < 0:
        raise QueryError(f"limit must not be negative, found {limit!r}")
    if not 0.0 < timeout_s < 1e6:
        raise QueryError(f"the time limit must be positive, found {timeout_s!r} seconds")
    sql = sql.strip().rstrip(";").strip()
    if not sql:
        raise QueryError(f"the SQL is empty; write for example: select * from v_best ({_HINT})")
    if "\x00" in sql:
        raise QueryError("the SQL holds a NUL character; remove it")
    database = Database(url, create=False, read_only=True)
    try:
        prepare(database, create=False)
        run = _run_sqlite if database.is_sqlite else _run_postgres
        return run(database, sql, limit, timeout_s)
    finally:
        database.close()


def _run_sqlite(database: Database, sql: str, limit: int, timeout_s: float) -> SqlResult:
    deadline = time.monotonic() + timeout_s

    def work(connection: Any) -> SqlResult:
        raw: sqlite3.Connection = connection.connection.driver_connection
        raw.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS_BETWEEN_CLOCKS)
        raw.set_authorizer(_authorize)
        try:
            cursor = raw.execute(sql)
            if cursor.description is None:
                raise QueryError(_only_reads(sql))
            found = cursor.fetchmany(limit + 1)
            columns = tuple(column[0] for column in cursor.description)
            cursor.close()
        except (sqlite3.Error, sqlite3.Warning, UnicodeError) as error:
            text = str(error)
            if "not authorized" in text or "prohibited" in text or "readonly" in text:
                raise QueryError(_only_reads(sql)) from error
            if "interrupted" in text:
                raise QueryError(_too_slow(timeout_s)) from error
            if "one statement at a time" in text:
                raise QueryError("only one statement is run at a time; remove what follows the first ';'") from error
            raise QueryError(f"the SQL is not valid: {' '.join(text.split())} ({_HINT})") from error
        finally:
            raw.set_authorizer(None)
            raw.set_progress_handler(None, 0)
        return SqlResult(columns, found[:limit], len(found) > limit)

    return database.read("run the SQL", work)


def _authorize(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _run_postgres(database: Database, sql: str, limit: int, timeout_s: float) -> SqlResult:
    words = sql.lstrip("( \n\t").split(None, 1)
    if words[:1] and words[0].lower() not in ("select", "with", "values", "table"):
        raise QueryError(_only_reads(sql))

    def work(connection: Any) -> SqlResult:
        import psycopg

        raw = connection.connection.driver_connection
        with raw.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {max(1, int(timeout_s * 1000))}")
            try:
                # Preparing refuses a second statement, which could end the transaction that only reads.
                # The line break ends a comment; the limit is applied by the server, which else sends all rows.
                cursor.execute(f"SELECT * FROM ({sql}\n) AS answer LIMIT {limit + 1:d}", prepare=True)
                found = cursor.fetchall()
            except psycopg.errors.QueryCanceled as error:
                raise QueryError(_too_slow(timeout_s)) from error
            except psycopg.errors.ReadOnlySqlTransaction as error:
                raise QueryError(_only_reads(sql)) from error
            except psycopg.OperationalError:
                raise
            except (psycopg.Error, UnicodeError) as error:
                text = " ".join(str(error).split("\nLINE")[0].split())
                raise QueryError(f"the SQL is not valid: {text} ({_HINT})") from error
            columns = tuple(column.name for column in cursor.description)
        return SqlResult(columns, found[:limit], len(found) > limit)

    return database.read("run the SQL", work)


def _only_reads(sql: str) -> str:
    return f"only statements that read are run here, found {sql.split(None, 1)[0].upper()[:20]!r}; write select ..."


def _too_slow(timeout_s: float) -> str:
    return f"the SQL took longer than {timeout_s:g} s; narrow it, or give it more time"
