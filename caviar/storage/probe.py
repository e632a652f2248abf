"""Is the database there, how long does it take to answer, and what does its clock say."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from caviar.storage.database import Database
from caviar.storage.version import prepare

_N_QUESTIONS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseFacts:
    """A trial database, seen from here."""

    #: Without its password.
    url: str
    version: str
    #: Seconds of a question that costs the database nothing; the median of five.
    latency_s: float
    #: Seconds that its clock is ahead of this machine's, known to within `latency_s`.
    clock_ahead: float


def probe(url: str) -> DatabaseFacts:
    """Open a database, which is there already, and ask it a few questions.

    Raises:
        StorageError: it cannot be opened, or is no trial database of this version.
    """
    database = Database(url, create=False, read_only=True)
    try:
        prepare(database, create=False)
        version, clock = (
            ("sqlite_version()", "strftime('%Y-%m-%d %H:%M:%f', 'now')")
            if database.is_sqlite
            else ("current_setting('server_version')", "to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS.US')")
        )
        seconds, ahead, name = [], 0.0, ""
        for _ in range(_N_QUESTIONS):
            start, before = time.perf_counter(), datetime.now(UTC)
            row = database.read_one("ask the database for the time", f"SELECT {version}, {clock}", ())
            seconds.append(time.perf_counter() - start)
            assert row is not None
            name, moment = map(str, row)
            there = datetime.fromisoformat(moment).replace(tzinfo=UTC)
            ahead = (there - before).total_seconds() - seconds[-1] / 2
        kind = "SQLite" if database.is_sqlite else "Postgres"
        return DatabaseFacts(url=database.shown, version=f"{kind} {name}", latency_s=median(seconds), clock_ahead=ahead)
    finally:
        database.close()
