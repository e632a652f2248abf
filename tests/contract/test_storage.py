"""The storage contract over SQLite in memory, SQLite in a file, and Postgres."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from caviar.storage import Storage, open_storage
from caviar.testing.storage import StorageContract
from caviar.testing.storage_queries import StorageQueryContract


class TestSqliteInMemory(StorageContract, StorageQueryContract):
    """A database that is gone when it is closed."""

    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        """A fresh storage."""
        opened = open_storage("sqlite://")
        yield opened
        opened.close()


class TestSqlite(StorageContract, StorageQueryContract):
    """A file."""

    @pytest.fixture
    def storage(self, sqlite_url: str) -> Iterator[Storage]:
        """A fresh storage."""
        opened = open_storage(sqlite_url)
        yield opened
        opened.close()


@pytest.mark.postgres
class TestPostgres(StorageContract, StorageQueryContract):
    """A real server."""

    @pytest.fixture
    def storage(self, postgres_url: str) -> Iterator[Storage]:
        """A fresh storage."""
        opened = open_storage(postgres_url)
        yield opened
        opened.close()
