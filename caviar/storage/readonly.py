"""SQL written by people (`caviar sql`): it reads, whatever it says, and gives up in time."""

from __future__ import annotations

import math
import re
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from caviar.errors import QueryError
from caviar.storage import ddl
from caviar.storage.database import Database
from caviar.storage.version import prepare

_HINT = f"the views are {', '.join(ddl.VIEWS)}"

#: What SQLite may do for a statement of a user: compile a SELECT, read a column, call a function, recurse.
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}

#: Of SQLite's virtual machine: few, as each can take as long as a function over the largest value does.
_STEPS_BETWEEN_CLOCKS = 100

#: Bytes of the largest value that SQLite makes for a statement, and of all texts of an answer.
_LONGEST_VALUE = 100_000_000
_LARGEST_ANSWER = 1_000_000_000

#: The first words of statements that read, and what may stand before them.
_READING = ("select", "with", "values", "table", "explain")
_BEFORE_WORDS = re.compile(r"(?:[\s(]|--[^\n]*|/\*.*?\*/)*", re.DOTALL)

#: Rows fetched from Postgres at a time.
_MOST_AT_ONCE = 1024


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
        limit: return at most so many rows; a huge one is none.
        timeout_s: give up after so many seconds.

    Raises:
        QueryError: it writes, is more than one statement, is not valid, or takes too long.
        StorageError: the database cannot be read.
    """
    if limit < 0:
        raise QueryError(f"limit must not be negative, found {limit!r}")
    if not 0.0 < timeout_s < 1e6:
        raise QueryError(f"the time limit must be above 0 and below a million seconds, found {timeout_s!r}")
    sql = sql.strip().rstrip("; \n\t")
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
        raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
        raw.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS_BETWEEN_CLOCKS)
        raw.set_authorizer(_authorize)
        try:
            cursor = raw.execute(sql)
            if cursor.description is None:
                raise QueryError(_only_reads(sql))
            found = _fetch(cursor, limit, deadline, timeout_s)
            columns = tuple(column[0] for column in cursor.description)
            cursor.close()
        except MemoryError as error:
            raise QueryError("the SQL needs more memory than there is; narrow it") from error
        except (sqlite3.Error, sqlite3.Warning, UnicodeError) as error:
            raise QueryError(_why(sql, str(error), timeout_s)) from error
        finally:
            raw.set_authorizer(None)
            raw.set_progress_handler(None, 0)
        return SqlResult(columns, found[:limit], len(found) > limit)

    return database.read("run the SQL", work)


def _fetch(cursor: Iterable[tuple[Any, ...]], limit: int, deadline: float, timeout_s: float) -> list[tuple[Any, ...]]:
    """Return rows, one more than the limit if there are."""
    found, size = [], 0
    for row in islice(cursor, min(limit, sys.maxsize - 1) + 1):
        found.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if size > _LARGEST_ANSWER:
            raise QueryError(f"the answer is larger than {_LARGEST_ANSWER:,} bytes; select less, or give a lower limit")
        if time.monotonic() > deadline:  # rows of large values take long, and few steps
            raise QueryError(_too_slow(timeout_s))
    return found


def _why(sql: str, text: str, timeout_s: float) -> str:
    """Return what SQLite's error means to whoever wrote the statement."""
    if "not authorized" in text or "prohibited" in text or "readonly" in text:
        return _only_reads(sql)
    if "interrupted" in text:
        return _too_slow(timeout_s)
    if "one statement at a time" in text:
        return "only one statement is run at a time; remove what follows the first ';'"
    if "too big" in text:
        return f"the SQL makes a value of more than {_LONGEST_VALUE:,} bytes; select a part of it"
    return f"the SQL is not valid: {' '.join(text.split())} ({_HINT})"


def _authorize(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _run_postgres(database: Database, sql: str, limit: int, timeout_s: float) -> SqlResult:
    word = _first_word(sql)
    if word not in _READING:
        raise QueryError(_only_reads(sql))
    deadline = time.monotonic() + timeout_s

    def work(connection: Any) -> SqlResult:
        import psycopg

        raw = connection.connection.driver_connection
        with raw.cursor() as cursor:
            _give_until(deadline, cursor)
            try:
                # Preparing refuses a second statement, which could end the transaction that only reads. A cursor is
                # declared for statements that read alone, and sends no more rows than are fetched.
                if word == "explain":
                    cursor.execute(sql, prepare=True)
                    columns, found = _names(cursor), cursor.fetchall()
                else:
                    cursor.execute(f"DECLARE answer NO SCROLL CURSOR FOR {sql}", prepare=True)
                    columns = _names(cursor.execute("FETCH 0 FROM answer"))
                    found = _fetch(_batches(cursor, limit, deadline), limit, deadline, timeout_s)
            except psycopg.errors.QueryCanceled as error:
                raise QueryError(_too_slow(timeout_s)) from error
            except psycopg.errors.ReadOnlySqlTransaction as error:
                raise QueryError(_only_reads(sql)) from error
            except psycopg.OperationalError:
                raise
            except (psycopg.Error, UnicodeError) as error:
                text = " ".join(str(error).split("\nLINE")[0].split())
                raise QueryError(f"the SQL is not valid: {text} ({_HINT})") from error
        # A function may have done what a transaction that only reads allows, such as making a large object.
        raw.rollback()
        return SqlResult(columns, found[:limit], len(found) > limit)

    return database.read("run the SQL", work)


def _give_until(deadline: float, cursor: Any) -> None:
    milliseconds = math.ceil((deadline - time.monotonic()) * 1000)
    cursor.execute(f"SET LOCAL statement_timeout = {max(1, milliseconds)}")


def _batches(cursor: Any, limit: int, deadline: float) -> Iterator[tuple[Any, ...]]:
    """Return rows of the cursor `answer`, one more than the limit if there are.

    Each batch has as many as all before it, up to a number: of rows too large to be held, few come at once.
    """
    n_rows, left = 1, limit + 1
    while left and (rows := cursor.execute(f"FETCH {min(n_rows, left)} FROM answer").fetchall()):
        yield from rows
        left -= len(rows)
        n_rows = min(2 * n_rows, _MOST_AT_ONCE)
        _give_until(deadline, cursor)


def _names(cursor: Any) -> tuple[str, ...]:
    return tuple(column.name for column in cursor.description)


def _only_reads(sql: str) -> str:
    return f"only statements that read are run here, found {_first_word(sql).upper()[:20]!r}; write select ..."


def _first_word(sql: str) -> str:
    before = _BEFORE_WORDS.match(sql)
    assert before is not None, "it matches nothing, too"
    rest = sql[before.end() :]
    word = re.match(r"\w+", rest)
    return word.group().lower() if word else rest[:1]


def _too_slow(timeout_s: float) -> str:
    return f"the SQL took longer than {timeout_s:g} s; narrow it, or give it more time"
