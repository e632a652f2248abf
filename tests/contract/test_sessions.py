"""The contract of babysat trials in the database over SQLite in memory, SQLite in a file, and Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from caviar.records import Trial
from caviar.storage import Storage, open_storage, schema
from caviar.storage.sql_storage import SqlStorage
from caviar.testing.sessions import SessionsContract, checkpoint
from caviar.testing.sessions_requests import SessionsRequestContract


class SqlSessionsContract(SessionsContract, SessionsRequestContract):
    """The suite over tables that can be filled at once."""

    def fill_shelf(self, storage: Storage, trial: Trial, n: int) -> None:
        """Insert the rows past the sessions."""
        assert isinstance(storage, SqlStorage)
        names = ("path", "epoch", "batch", "step", "segment", "sequence", "size_bytes")
        database = storage.database

        def rows(trial_id: int) -> list[dict[str, object]]:
            made = [checkpoint(epoch) for epoch in range(n)]
            more = {"trial_id": trial_id, "created_at": datetime.now(UTC)}
            return [{name: getattr(one, name) for name in names} | more for one in made]

        def work(connection: object) -> None:
            key = storage.study_key(connection, trial.study)
            connection.execute(insert(schema.checkpoints), rows(schema.trial_id(key.id, trial.number)))

        database.write("fill the shelf", work)


class TestSqliteInMemory(SqlSessionsContract):
    """A database that is gone when it is closed."""

    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        """A fresh storage."""
        opened = open_storage("sqlite://")
        yield opened
        opened.close()


class TestSqlite(SqlSessionsContract):
    """A file."""

    @pytest.fixture
    def storage(self, sqlite_url: str) -> Iterator[Storage]:
        """A fresh storage."""
        opened = open_storage(sqlite_url)
        yield opened
        opened.close()


@pytest.mark.postgres
class TestPostgres(SqlSessionsContract):
    """A real server."""

    @pytest.fixture
    def storage(self, postgres_url: str) -> Iterator[Storage]:
        """A fresh storage."""
        opened = open_storage(postgres_url)
        yield opened
        opened.close()
