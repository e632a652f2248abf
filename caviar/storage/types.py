"""Column types that are stored alike on SQLite and Postgres."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Integer, types
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles

from caviar.errors import StorageError

#: 64-bit on both; on SQLite the name must be INTEGER to be the row id.
Id = BigInteger().with_variant(Integer, "sqlite")


class JsonText(types.UserDefinedType[str]):
    """JSON that goes in and comes out as text: TEXT on SQLite, JSONB on Postgres."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name in SQL."""
        return "TEXT"


@compiles(JsonText, "postgresql")
def _jsonb(_type: JsonText, _compiler: Any, **_: Any) -> str:
    return "JSONB"


class UtcTime(types.UserDefinedType[datetime]):
    """A moment: TIMESTAMPTZ on Postgres, `2026-11-24 02:05:02.123456+00:00` (which sorts as text) on SQLite."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name in SQL."""
        return "TEXT"

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any]:
        """Return what turns a datetime into a parameter."""
        if dialect.name == "sqlite":
            return time_to_text
        return as_utc

    def result_processor(self, dialect: Dialect, _coltype: object) -> Callable[[Any], datetime | None]:
        """Return what turns a result into a datetime in UTC."""
        return time_from_db


@compiles(UtcTime, "postgresql")
def _timestamptz(_type: UtcTime, _compiler: Any, **_: Any) -> str:
    return "TIMESTAMP WITH TIME ZONE"


def as_utc(moment: datetime | None) -> datetime | None:
    """Return the moment in UTC.

    Raises:
        StorageError: it has no timezone.
    """
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise StorageError(f"a time must carry its timezone, found {moment!r}; use datetime.now(UTC)")
    return moment.astimezone(UTC)


def time_to_text(moment: datetime | None) -> str | None:
    """Return the moment as SQLite holds it: fixed width, so that texts sort as moments do."""
    utc = as_utc(moment)
    return None if utc is None else utc.isoformat(sep=" ", timespec="microseconds")


def time_from_db(value: Any) -> datetime | None:
    """Return the moment that either database holds."""
    if value is None:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    moment: datetime = value
    return moment.astimezone(UTC)
