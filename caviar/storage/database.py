"""A connection to SQLite or Postgres: URL, pragmas, transactions and the translation of errors."""

from __future__ import annotations

import math
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

from sqlalchemy import create_engine, event, exc
from sqlalchemy.engine import URL, Connection, Engine, Row
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from caviar.errors import StorageError, StorageMissing, StorageUnreachable
from caviar.storage.url import is_read_only, parse_url, shown

#: Longer than any transaction of ours; whoever waits longer is told.
BUSY_TIMEOUT_S = 60.0

#: A server that is switched off, or behind a cable that is cut, is noticed in so many seconds (the second: ms).
_CONNECT: dict[str, Any] = {
    "connect_timeout": 10,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    # Texts are Unicode here, whatever the environment says.
    "client_encoding": "utf8",
}
_RETRIES = 8
#: A connection to Postgres that was not used for longer is tested before it is used.
_IDLE_S = 2.0

T = TypeVar("T")


class Database:
    """One database and its connections.

    Promises that each function given to `read` or `write` runs in one transaction, that `read` sees one moment, and
    that whatever the drivers raise comes out as a StorageError that names the operation. Safe to use from several
    threads.

    Args:
        url: a URL as `parse_url` takes it.
        create: whether a missing SQLite file is made.
        read_only: refuse every write.

    Raises:
        StorageError: the URL is not valid, or the path of an SQLite file cannot be used.
    """

    def __init__(self, url: str, *, create: bool = True, read_only: bool = False) -> None:
        self.url = parse_url(url)
        self.shown = shown(self.url)
        self.dialect = self.url.get_backend_name()
        self.is_sqlite = self.dialect == "sqlite"
        self.path: Path | None = None
        self._read_only = read_only or is_read_only(self.url)
        if self.is_sqlite:
            self.path = _sqlite_path(self.url, create and not self._read_only)
            self._engine = _sqlite_engine(self.url, self.path, self._read_only)
            self._reader = self._engine
            self._single = self._engine.execution_options(caviar_single=True)
        else:
            self._engine = _postgres_engine(self.url, self._read_only)
            # All statements of one read see the same moment.
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._single = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        # Whoever forgets to close it leaves no open connection behind.
        weakref.finalize(self, self._engine.dispose)
        self._writer = self._engine.execution_options(caviar_write=True)
        # A database in memory is one connection, which one thread at a time may use.
        self._lock: AbstractContextManager[Any] = (
            threading.RLock() if self.is_sqlite and self.path is None else nullcontext()
        )

    def read(self, operation: str, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that only reads.

        Args:
            operation: what is being done, for the message: `read trial 3 of 'digits'`.
            work: takes a connection; its result is returned.
        """
        return self._run(self._reader, operation, work)

    def write(self, operation: str, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Run `work` in a transaction that is committed when it returns and rolled back when it raises.

        It may be run several times, where the database gives way to another writer. Without `durable`, the last
        transactions may be lost, whole and in order, when a Postgres server loses power.
        """
        if durable or self.is_sqlite:
            return self._run(self._writer, operation, work)

        def lax(connection: Connection) -> T:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            return work(connection)

        return self._run(self._writer, operation, lax)

    def read_one(self, operation: str, sql: str, values: tuple[Any, ...]) -> Row[Any] | None:
        """Run one statement that reads, without a transaction around it; return the first row.

        Args:
            operation: what is being done, for the message.
            sql: the statement, with `?` for each value.
            values: what is bound.
        """
        if not self.is_sqlite:
            sql = sql.replace("?", "%s")
        return self._run(self._single, operation, lambda connection: connection.exec_driver_sql(sql, values).first())

    def write_one(self, operation: str, sql: str, values: tuple[Any, ...]) -> bool:
        """Run one statement that writes, as a transaction of its own, which saves two journeys to the server.

        Args:
            operation: what is being done, for the message.
            sql: the statement, with `?` for each value, which ends in `RETURNING 1`.
            values: what is bound.

        Returns:
            Whether it wrote a row.
        """
        if not self.is_sqlite:
            sql = sql.replace("?", "%s")
        return self._run(
            self._single, operation, lambda connection: connection.exec_driver_sql(sql, values).first() is not None
        )

    def _run(self, engine: Engine, operation: str, work: Callable[[Connection], T]) -> T:
        for attempt in range(_RETRIES):
            try:
                with self._lock, engine.begin() as connection:
                    return work(connection)
            except exc.DBAPIError as error:
                if attempt + 1 < _RETRIES and _is_transient(error):
                    time.sleep(random.uniform(0.0, 0.01 * 2**attempt))
                    continue
                raise self.failure(operation, error) from error
            except (exc.SQLAlchemyError, sqlite3.Error) as error:
                raise self.failure(operation, error) from error
            except Exception as error:
                if type(error).__module__.startswith("psycopg"):  # COPY is called past SQLAlchemy
                    raise self.failure(operation, error) from error
                raise
        raise AssertionError("the last attempt returns or raises")

    def enter_wal_mode(self) -> None:
        """Let readers of an SQLite file go on while one process writes; this outlives the connection."""
        if self.path is None or self._read_only:
            return
        connection = self._engine.raw_connection()
        try:
            _enter_wal_mode(cast("sqlite3.Connection", connection.driver_connection))
        except sqlite3.Error as error:
            raise self.failure("switch to WAL mode", error) from error
        finally:
            connection.close()

    def failure(self, operation: str, error: Exception) -> StorageError:
        """Return the error that says in one line what failed and why."""
        cause = getattr(error, "orig", None) or error
        text = " ".join(str(cause).split("\nLINE ")[0].split()) or type(cause).__name__
        advice = next((hint for words, hint in _ADVICE if words in text), "")
        if is_read_only(self.url) and "readonly database" in text:
            advice = "; the URL says mode=ro: remove that to write"
        kind = StorageUnreachable if _is_unreachable(cause) else StorageError
        return kind(f"could not {operation} in {self.shown!r}: {text.rstrip('.')}{advice}")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


_ADVICE = (
    ("database or disk is full", "; free some space, then run the command again"),
    ("disk I/O error", "; look at the disk, its quota and the largest file it takes, then run the command again"),
    ("No space left on device", "; free some space, then run the command again"),
    ("database is locked", "; another process holds it: close that one, then run the command again"),
    ("file is not a database", "; the file holds something else: give another path"),
    ("file is encrypted or is not a database", "; the file holds something else: give another path"),
    ("readonly database", "; make the file and its folder writable, or give another path"),
    ("unable to open database file", "; make its folder writable, or copy the file to one that is"),
    ("permission denied", "; have the rights granted, or give another user in the URL"),
    ("Connection refused", "; check that the server runs and that host and port are right"),
)


def _is_transient(error: exc.DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        # Busy at once instead of after the timeout: a read could not become a write, or recovery was under way.
        return error.orig.sqlite_errorname in ("SQLITE_BUSY_SNAPSHOT", "SQLITE_BUSY_RECOVERY")
    state = getattr(error.orig, "sqlstate", None)
    return state in ("40001", "40P01")  # serialization failure, deadlock


def _is_unreachable(error: BaseException) -> bool:
    """Return whether the database does not answer now, and may later."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    if type(error).__name__ not in ("OperationalError", "AdminShutdown", "CrashShutdown", "CannotConnectNow"):
        return False
    state = getattr(error, "sqlstate", None)
    # no answer at all, connection failure, or a server that shuts down, recovers or starts
    return state is None or state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P05")


def _sqlite_path(url: URL, create: bool) -> Path | None:
    name = url.database
    if name in (None, "", ":memory:"):
        return None
    assert name is not None
    path = Path(name)
    try:
        if path.is_dir():
            raise StorageError(f"{str(path)!r} is a folder, expected the path of an SQLite file; add a file name")
        if path.exists():
            return path
        if not create:
            raise StorageMissing(f"there is no database {str(path)!r}; give --storage URL, or run a sweep to make one")
        if not path.parent.is_dir():
            raise StorageError(
                f"cannot make the database {str(path)!r}: there is no folder {str(path.parent)!r}; make it first"
            )
    except OSError as error:
        raise StorageError(f"cannot open the database {str(path)!r}: {error.strerror or error}") from error
    return path


def _sqlite_engine(url: URL, path: Path | None, read_only: bool) -> Engine:
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": BUSY_TIMEOUT_S}}
    if path is None:
        # Every thread must see the one database in memory.
        options["poolclass"] = StaticPool
    # What the URL asks for is done below; the driver would take it for a part of the path.
    address = url.set(query={})
    if path is not None and read_only and _cannot_change(path):
        address = url.set(database=f"file:{quote(str(path.absolute()))}", query={"uri": "true", "immutable": "1"})
    engine = create_engine(address, **options)

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own transaction control cannot BEGIN IMMEDIATE: switch it off, and begin below.
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -65536")  # KiB
        connection.execute("PRAGMA mmap_size = 268435456")
        connection.execute("PRAGMA temp_store = MEMORY")
        # Pages of the indexes of a large study change in each transaction: brought home every 64 MiB, they are written
        # once for many of those. SQLite's default of 4 MiB would do so after each.
        connection.execute("PRAGMA wal_autocheckpoint = 16384")
        if read_only:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("caviar_single"):
            return
        write = options.get("caviar_write", False)
        # A transaction that reads first and writes later cannot wait for its turn: SQLite must know at once.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _cannot_change(path: Path) -> bool:
    """Return whether nobody can write a file here: SQLite, which would make files beside it, may be told so."""
    if not hasattr(os, "statvfs") or path.with_name(f"{path.name}-wal").exists():
        return False
    return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)  # to this user or that is not enough


def _enter_wal_mode(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL; one that cannot be written stays as it is."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait here: several processes that open a new file at once must ask again.
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
                return
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _postgres_engine(url: URL, read_only: bool) -> Engine:
    connect = {name: value for name, value in _CONNECT.items() if name not in url.query or name == "client_encoding"}
    try:
        engine = create_engine(url, connect_args=connect, pool_size=4, max_overflow=16)
    except exc.ArgumentError as error:  # hosts and ports that do not go together
        raise StorageError(f"cannot use the URL {shown(url)!r}: {' '.join(str(error).split())}") from error

    @event.listens_for(engine, "checkin")
    def _note_use(_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _test(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        # The server may have been restarted meanwhile. Asking each time would take as long as most statements.
        if time.monotonic() - record.info.get("used_at", math.inf) > _IDLE_S:
            try:
                connection.execute("SELECT 1")
                connection.rollback()
            except Exception as error:  # whatever it is, SQLAlchemy is to make another
                raise exc.DisconnectionError("the connection is gone") from error

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        from psycopg.types.string import TextLoader

        # JSON is decoded by caviar's own codec.
        connection.adapters.register_loader("jsonb", TextLoader)
        connection.adapters.register_loader("json", TextLoader)
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
            # Compiling a query takes longer than ours run.
            cursor.execute("SET jit = off")
            if read_only:
                cursor.execute("SET default_transaction_read_only = on")
        connection.commit()

    return engine


@contextmanager
def opened(url: str, *, create: bool = True, read_only: bool = False) -> Iterator[Database]:
    """Open a database for the time of a `with` block."""
    database = Database(url, create=create, read_only=read_only)
    try:
        yield database
    finally:
        database.close()
