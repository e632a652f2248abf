"""The version of a database's schema: made new at the latest, checked at opening, brought up on request.

Opening reads one row and does not import Alembic; only `upgrade` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.engine import Connection

from caviar.errors import StorageError, StorageMissing, StorageVersionError
from caviar.storage import ddl, schema
from caviar.storage.database import Database, opened

#: Any number of 63 bits: whoever makes or upgrades the schema holds Postgres's advisory lock of this number.
_ADVISORY_LOCK = 7_263_410_982_113


def prepare(database: Database, *, create: bool = True) -> None:
    """Make the schema where there is none, and check its version where there is one.

    Several processes may do so at once: one makes it, the others find it.

    Raises:
        StorageVersionError: the schema is older or newer than this caviar's.
        StorageError: the tables are another program's, or the database cannot be used.
    """
    found = database.read("read the version of the schema", _read_revision)
    if found is None:
        if not create:
            raise StorageMissing(
                f"{database.shown!r} holds no caviar database, or none that you may see; give --storage URL, or run a "
                "sweep to make one"
            )
        # Before anything is changed: the file may be another program's.
        database.read("list the tables", lambda connection: _refuse_foreign(connection, database.shown))
        database.enter_wal_mode()
        found = database.write("make the tables", lambda connection: _create(connection, database.shown))
    check_revision(found, database.shown)


def check_revision(found: str, shown: str) -> None:
    """Refuse a schema that is older or newer than this caviar's.

    Raises:
        StorageVersionError: it is.
    """
    expected = schema.REVISIONS[-1]
    if found == expected:
        return
    if found in schema.REVISIONS or found < expected:
        raise StorageVersionError(
            f"the database {shown!r} has schema {found!r}, this caviar needs {expected!r}: "
            "back it up, then run `caviar db upgrade`"
        )
    raise StorageVersionError(
        f"the database {shown!r} has schema {found!r}, which is newer than {expected!r} of this caviar: upgrade caviar"
    )


def upgrade(url: str) -> tuple[str | None, str]:
    """Bring a database to the schema of this caviar; make it where there is none.

    Returns:
        The version it had, None if it was empty, and the version it has now.

    Raises:
        StorageVersionError: it is newer than this caviar.
        StorageError: it cannot be used; then it is as it was.
    """
    with opened(url) as database:
        found = database.read("read the version of the schema", _read_revision)
        if found is None:
            prepare(database)
        elif found != schema.REVISIONS[-1]:
            if found not in schema.REVISIONS:
                check_revision(found, database.shown)
            database.write("upgrade the tables", run_migrations)
        return found, schema.REVISIONS[-1]


def run_migrations(connection: Connection, target: str = "head") -> None:
    """Run the migrations up to a revision, inside the connection's transaction."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    _lock(connection)
    config = Config()
    config.set_main_option("script_location", "caviar.storage:migrations")
    scripts = ScriptDirectory.from_config(config)

    def steps(revision: Any, _context: object) -> object:
        return scripts._upgrade_revs(target, revision)

    with EnvironmentContext(config, scripts) as environment:
        environment.configure(
            connection,
            target_metadata=schema.metadata,
            version_table=schema.VERSION_TABLE,
            fn=steps,
            transaction_per_migration=False,
        )
        environment.run_migrations()


def _read_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(schema.VERSION_TABLE):
        return None
    row = connection.exec_driver_sql(f"SELECT version_num FROM {schema.VERSION_TABLE}").fetchone()
    return None if row is None else str(row[0])


def _create(connection: Connection, shown: str) -> str:
    _lock(connection)
    found = _read_revision(connection)
    if found is not None:  # another process was faster
        return found
    _refuse_foreign(connection, shown)
    schema.create_all(connection)
    for statement in ddl.statements(connection.dialect.name):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(
        f"CREATE TABLE {schema.VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
        f"CONSTRAINT {schema.VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
    )
    connection.exec_driver_sql(f"INSERT INTO {schema.VERSION_TABLE} VALUES ('{schema.REVISIONS[-1]}')")
    return schema.REVISIONS[-1]


def _refuse_foreign(connection: Connection, shown: str) -> None:
    if _read_revision(connection) is not None:  # another process has made them meanwhile
        return
    taken = sorted(set(inspect(connection).get_table_names()) & set(schema.metadata.tables))
    if taken:
        raise StorageError(
            f"{shown!r} holds tables of another program ({_listed(taken)}): give another database "
            "(`caviar import --from-optuna URL` reads the studies of one made by Optuna)"
        )


def _lock(connection: Connection) -> None:
    # SQLite needs none: its write transaction excludes every other.
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
