"""Writing many rows at once, the fast way of each database.

SQLite: one prepared statement, executed for each row. Postgres: one statement over arrays, and COPY for reports; a
statement for each row would also run the counting triggers for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, count, repeat
from typing import Any

from sqlalchemy import Table
from sqlalchemy.engine import Connection

from caviar.storage.rows import WRITTEN, WRITTEN_TYPES

#: What never changes.
_KEY = ("id", "study_id", "number", "space_version")
_CHANGED = tuple(name for name in WRITTEN if name not in _KEY)

#: Reports of one trial: its id, the epoch of the first, and the metrics of each epoch from there on, as JSON.
ReportBlock = tuple[int, int, Sequence[str]]

_SQLITE_INSERT = f"INSERT INTO trials ({', '.join(WRITTEN)}) VALUES ({', '.join('?' * len(WRITTEN))})"
# The id comes last, so that a row need only be turned round.
_SQLITE_UPDATE = f"UPDATE trials SET {', '.join(f'{name} = ?' for name in _CHANGED)} WHERE id = ?"
_SQLITE_REPORTS = "INSERT OR REPLACE INTO reports (trial_id, epoch, metrics) VALUES (?, ?, ?)"

_ARRAYS = ", ".join(f"%s::{kind}[]" for kind in WRITTEN_TYPES)
_POSTGRES_INSERT = f"INSERT INTO trials ({', '.join(WRITTEN)}) SELECT * FROM unnest({_ARRAYS})"
_POSTGRES_UPDATE = (
    f"UPDATE trials AS t SET {', '.join(f'{name} = n.{name}' for name in _CHANGED)} "
    f"FROM unnest({_ARRAYS}) AS n ({', '.join(WRITTEN)}) WHERE t.id = n.id"
)
_POSTGRES_REPORTS = (
    "INSERT INTO reports (trial_id, epoch, metrics) SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::jsonb[]) "
    "ON CONFLICT (trial_id, epoch) DO UPDATE SET metrics = excluded.metrics"
)


def insert_into(table: Table, dialect: str) -> Any:
    """Return an INSERT that can say what to do on a conflict. Only the dialect that is used is imported."""
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        return sqlite_insert(table)
    from sqlalchemy.dialects.postgresql import insert as postgresql_insert

    return postgresql_insert(table)


def insert_trials(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows of the columns `WRITTEN` into `trials`."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_SQLITE_INSERT, list(rows))
    else:
        connection.exec_driver_sql(_POSTGRES_INSERT, _columns(rows, WRITTEN_TYPES))


def update_trials(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
    """Replace the rows of `trials` with the same ids; return how many there were.

    No two rows may have the same id.
    """
    if connection.dialect.name == "sqlite":
        skip = len(_KEY)
        changed = [(*row[skip:], row[0]) for row in rows]
        return connection.exec_driver_sql(_SQLITE_UPDATE, changed).rowcount
    return connection.exec_driver_sql(_POSTGRES_UPDATE, _columns(rows, WRITTEN_TYPES)).rowcount


def put_reports(connection: Connection, blocks: Sequence[ReportBlock]) -> None:
    """Insert reports; one of the same trial and epoch is replaced.

    No two may be of the same trial and epoch.
    """
    if not any(texts for _, _, texts in blocks):
        return
    if connection.dialect.name == "sqlite":
        # The driver takes the rows one by one; SQLAlchemy would want them all at once.
        cursor: Any = connection.connection.cursor()
        cursor.executemany(_SQLITE_REPORTS, _rows(blocks))
        return
    if _copy_reports(connection, blocks):
        return
    connection.exec_driver_sql(_POSTGRES_REPORTS, _columns(list(_rows(blocks)), ("bigint", "bigint", "jsonb")))


def _rows(blocks: Sequence[ReportBlock]) -> Iterator[tuple[int, int, str]]:
    """Return trial, epoch and metrics of each report, made by loops in C and held one at a time."""
    return chain.from_iterable(zip(repeat(trial_id), count(first), texts) for trial_id, first, texts in blocks)


def _copy_reports(connection: Connection, blocks: Sequence[ReportBlock]) -> bool:
    """Copy reports into Postgres; return False, with nothing done, where one of them is there already."""
    from psycopg.errors import UniqueViolation

    # COPY takes a backslash for an escape, and JSON has some in strings with quotes.
    text = "".join(map("%d\t%d\t%s\n".__mod__, _rows(blocks))).replace("\\", "\\\\")
    savepoint = connection.begin_nested()
    cursor = connection.connection.cursor()
    try:
        with cursor.copy("COPY reports (trial_id, epoch, metrics) FROM STDIN") as copy:
            copy.write(text)
    except UniqueViolation:
        savepoint.rollback()
        return False
    finally:
        cursor.close()
    savepoint.commit()
    return True


def _columns(rows: Sequence[tuple[Any, ...]], types: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of rows as Postgres writes arrays. The driver needs four times as long for each value."""
    return tuple(
        _array(column, is_text=kind not in ("bigint", "float8"))
        for column, kind in zip(zip(*rows, strict=True), types, strict=True)
    )


def _array(values: Sequence[Any], *, is_text: bool) -> str:
    if is_text:
        words = ("NULL" if v is None else '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values)
    else:
        words = ("NULL" if v is None else repr(v) for v in values)
    return "{" + ",".join(words) + "}"
