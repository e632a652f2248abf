"""The schema from scratch, the schema from migrations, and databases of other versions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, inspect
from sqlalchemy.engine import Connection

from caviar.errors import StorageError, StorageVersionError
from caviar.storage import ddl, open_storage, schema, upgrade, version
from caviar.storage.database import opened
from caviar.testing.storage import make_result, make_spec, make_trial

#: What makes up a Postgres schema, as its catalogues tell it.
_POSTGRES = (
    "SELECT table_name, column_name, ordinal_position, data_type, is_nullable, column_default, is_identity "
    "FROM information_schema.columns WHERE table_schema = 'public'",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace",
    "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
    "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "SELECT relname, reloptions::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
)


def _schema_of(connection: Connection) -> list[Any]:
    """Return everything that a schema is made of, without the spaces between."""
    if connection.dialect.name == "sqlite":
        found = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    else:
        found = [row for query in _POSTGRES for row in connection.exec_driver_sql(query)]
    return sorted([re.sub(r"\s+", "", str(value)).replace('"', "") for value in row] for row in found)


def _migrate(url: str, target: str = "head") -> None:
    with opened(url) as database:
        database.write("migrate", lambda connection: version.run_migrations(connection, target))


def test_the_migrations_make_the_schema_that_a_fresh_database_gets(
    tmp_path: Path, database_url: str, request: pytest.FixtureRequest
) -> None:
    """Tables, indexes, constraints, triggers and views are the same both ways."""
    _migrate(database_url)
    with opened(database_url) as database:
        migrated = database.read("read the schema", _schema_of)
        if database.is_sqlite:
            fresh_url = f"sqlite:///{tmp_path / 'fresh.db'}"
        else:
            fresh_url = database_url
            database.write("empty the database", _empty)
    open_storage(fresh_url).close()

    with opened(fresh_url) as database:
        fresh = database.read("read the schema", _schema_of)

    assert len(fresh) > 30
    assert migrated == fresh


def _empty(connection: Connection) -> None:
    connection.exec_driver_sql("DROP SCHEMA public CASCADE")
    connection.exec_driver_sql("CREATE SCHEMA public")


def test_the_tables_in_a_database_are_those_of_the_code(database_url: str) -> None:
    """Every table and column that the code knows is there, and no other."""
    open_storage(database_url).close()

    def columns(connection: Connection) -> dict[str, list[str]]:
        names = inspect(connection).get_table_names()
        return {name: list(connection.exec_driver_sql(f"SELECT * FROM {name}").keys()) for name in names}

    with opened(database_url) as database:
        found = database.read("read the tables", columns)

    assert found.pop(schema.VERSION_TABLE) == ["version_num"]
    assert found == {name: list(table.columns.keys()) for name, table in schema.metadata.tables.items()}


def test_the_code_knows_every_migration() -> None:
    """The list of revisions, which is read at opening, is that of the migration scripts."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "caviar.storage:migrations")

    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]

    assert tuple(reversed(revisions)) == schema.REVISIONS


def test_a_migrated_database_works(database_url: str) -> None:
    """What the migrations made is opened and written like any other."""
    _migrate(database_url)

    storage = open_storage(database_url)
    storage.create_study(make_spec())
    storage.add_trials("digits", [make_trial(0)])
    storage.write("digits", [make_result(0)])
    counts = storage.summary("digits").counts
    storage.close()

    assert counts == {"COMPLETE": 1}


def test_upgrade_makes_a_missing_database(database_url: str) -> None:
    """Upgrading nothing makes it; upgrading again changes nothing."""
    head = schema.REVISIONS[-1]

    assert upgrade(database_url) == (None, head)
    assert upgrade(database_url) == (head, head)


@pytest.mark.parametrize("found", ["9999", "zzzz"])
def test_a_newer_database_is_refused(database_url: str, found: str) -> None:
    """Neither opening nor upgrading touches a schema of the future."""
    open_storage(database_url).close()
    _set_version(database_url, found)

    for operation in (open_storage, upgrade):
        with pytest.raises(StorageVersionError, match=f"schema '{found}', which is newer.*upgrade caviar"):
            operation(database_url)


def test_an_older_database_names_the_command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a schema of the past says how to bring it up to date."""
    open_storage(database_url).close()
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9999"))

    with pytest.raises(StorageVersionError, match="caviar db upgrade"):
        open_storage(database_url)


def test_tables_of_another_program_are_left_alone(database_url: str) -> None:
    """A database that holds tables of these names, made by Optuna say, is refused, and stays as it was."""
    foreign = MetaData()
    Table("trials", foreign, Column("x", Integer))
    with opened(database_url) as database:
        database.write("make a table", foreign.create_all)

    with pytest.raises(StorageError, match=r"tables of another program .'trials'."):
        open_storage(database_url)

    with opened(database_url) as database:
        tables = database.read("read the tables", lambda connection: inspect(connection).get_table_names())
    assert tables == ["trials"]


def test_every_view_is_made(database_url: str) -> None:
    """The documented views answer, also when there is nothing."""
    open_storage(database_url).close()

    with opened(database_url) as database:
        for view in ddl.VIEWS:
            found = database.read("read", lambda c, view=view: c.exec_driver_sql(f"SELECT * FROM {view}").fetchall())
            assert found == []


def _set_version(url: str, found: str) -> None:
    with opened(url) as database:
        database.write(
            "set the version",
            lambda connection: connection.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET version_num = '{found}'"),
        )
