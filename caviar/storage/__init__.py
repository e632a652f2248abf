"""The trial database: open it here.

SQLAlchemy is imported when a database is opened, not with this package, so that `import caviar` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from caviar.storage.base import Storage, StudyNotes

if TYPE_CHECKING:
    from caviar.storage.optuna_api import OptunaStorage
    from caviar.storage.readonly import SqlResult

__all__ = ["Storage", "StudyNotes", "open_storage", "optuna_storage", "run_sql", "upgrade"]


def open_storage(url: str, *, create: bool = True) -> Storage:
    """Open the trial database; a missing one is made.

    Args:
        url: `sqlite:///relative/path`, `sqlite:////absolute/path`, `sqlite://` (in memory, gone when closed), or
            `postgresql://user:password@host:port/database`.
        create: whether a missing database is made.

    Raises:
        StorageVersionError: its schema is older (the message names `caviar db upgrade`) or newer than this caviar's.
        StorageError: the URL is not valid, or the database cannot be reached or used.
    """
    from caviar.storage.database import Database
    from caviar.storage.sql_storage import SqlStorage

    database = Database(url, create=create)
    try:
        return SqlStorage(database, create=create)
    except BaseException:
        database.close()
        raise


def upgrade(url: str) -> tuple[str | None, str]:
    """Bring a database to the schema of this caviar (`caviar db upgrade`); make it where there is none.

    Returns:
        The version it had, None if it was empty, and the version it has now.

    Raises:
        StorageVersionError: it is newer than this caviar.
        StorageError: it cannot be used; then it is as it was.
    """
    from caviar.storage.version import upgrade as run

    return run(url)


def optuna_storage(url: str) -> OptunaStorage:
    """Return the same database as a storage for Optuna: `optuna.load_study(study_name=..., storage=...)`.

    Raises:
        StorageVersionError: its schema is older or newer than this caviar's.
        StorageError: the URL is not valid, or the database cannot be reached or used.
    """
    from caviar.storage.optuna_api import OptunaStorage

    return OptunaStorage(url)


def run_sql(url: str, sql: str, *, limit: int = 1000, timeout_s: float = 30.0) -> SqlResult:
    """Run one SQL statement that reads (`caviar sql`), best over the views `v_trials`, `v_best`, `v_reports`, ...

    Args:
        url: URL of the storage.
        sql: one statement, `select ...`.
        limit: return at most so many rows.
        timeout_s: give up after so many seconds.

    Raises:
        QueryError: it writes, is more than one statement, is not valid, or takes too long.
        StorageError: the database cannot be read.
    """
    from caviar.storage.readonly import run_sql as run

    return run(url, sql, limit=limit, timeout_s=timeout_s)
