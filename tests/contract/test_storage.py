"""The storage contract over SQLite in memory, SQLite in a file, and Postgres."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from caviar.storage import Storage, open_storage
from caviar.testing.storage import StorageContract
from caviar.testing.storage_queries import StorageQueryContract
from caviar.testing.storage_trials import StorageTrialContract


class TestSqliteInMemory(StorageContract, StorageTrialContract, StorageQueryContract):
    """A database that is gone when it is closed."""

    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        """A fresh storage."""
        opened = open_storage("sqlite://")
        yield opened
        opened.close()


class TestSqlite(StorageContract, StorageTrialContract, StorageQueryContract):
    """A file."""

    @pytest.fixture
    def storage(self, sqlite_url: str) -> Iterator[Storage]:
        """A fresh storage."""
        opened = open_storage(sqlite_url)
        yield opened
        opened.close()


@pytest.mark.postgres
class TestPostgres(StorageContract, StorageTrialContract, StorageQueryContract):
    """A real server."""

    @pytest.fixture
    def storage(self, postgres_url: str) -> Iterator[Storage]:
        """A fresh storage."""
        opened = open_storage(postgres_url)
        yield opened
        opened.close()
