"""The trial database: open it here.

SQLAlchemy is imported when a database is opened, not with this package, so that `import caviar` stays quick.
"""

from __future__ import annotations

from caviar.storage.base import Storage

__all__ = ["Storage", "open_storage", "upgrade"]


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
