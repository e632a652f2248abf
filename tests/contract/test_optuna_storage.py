"""Optuna's own suite, whole and unmodified, over the Optuna storage."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest
from optuna.testing.pytest_storages import StorageTestCase

from caviar.storage.optuna_api import OptunaStorage


class TestSqlite(StorageTestCase):
    """A file."""

    @pytest.fixture
    def storage(self, sqlite_url: str) -> Iterator[optuna.storages.BaseStorage]:
        """A fresh storage."""
        opened = OptunaStorage(sqlite_url)
        yield opened
        opened.close()


@pytest.mark.postgres
class TestPostgres(StorageTestCase):
    """A real server."""

    @pytest.fixture
    def storage(self, postgres_url: str) -> Iterator[optuna.storages.BaseStorage]:
        """A fresh storage."""
        opened = OptunaStorage(postgres_url)
        yield opened
        opened.close()
