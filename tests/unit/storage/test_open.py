"""Opening a database: what is made, and what is said where it cannot be."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from caviar.errors import StorageError
from caviar.storage import open_storage
from caviar.testing.storage import make_spec


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must be a URL such as sqlite:///caviar.db"),
        ("caviar.db", "must be a URL such as sqlite:///caviar.db"),
        ("sqlite:/x", "must be a URL such as sqlite:///caviar.db"),
        ("postgresql://host:port/x", "must be a URL such as sqlite:///caviar.db"),
        ("mysql://localhost/x", "unknown database 'mysql'.*known: sqlite, postgresql"),
        ("oracle+cx://localhost/x", "unknown database 'oracle'"),
        ("postgresql+psycopg2://localhost/x", "must be psycopg"),
        ("sqlite://caviar.db", "names a host"),
        ("sqlite:////no/such/folder/caviar.db", "no folder '/no/such/folder'"),
        ("sqlite:////proc/caviar.db", "could not read the version|could not make the tables"),
        ("sqlite:////dev/null/caviar.db", "no folder '/dev/null'"),
        ("sqlite:///a\x00b", "NUL"),
        ("sqlite:///" + "x" * 300, "cannot open the database"),
    ],
)
def test_a_url_that_cannot_be_used_says_why(url: str, message: str) -> None:
    """One line, no traceback of another library."""
    with pytest.raises(StorageError, match=message) as caught:
        open_storage(url)

    assert "\n" not in str(caught.value)


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    """A path of a folder is refused."""
    with pytest.raises(StorageError, match="is a folder"):
        open_storage(f"sqlite:///{tmp_path}")


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """A file that is no database keeps its contents."""
    path = tmp_path / "notes.txt"
    path.write_text("hello " * 1000)

    with pytest.raises(StorageError, match="file is not a database; the file holds something else"):
        open_storage(f"sqlite:///{path}")

    assert path.read_text() == "hello " * 1000


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    """As SQLite itself has it."""
    path = tmp_path / "caviar.db"
    path.touch()

    storage = open_storage(f"sqlite:///{path}")

    assert storage.studies() == []
    storage.close()


def test_a_missing_file_is_not_made_where_it_should_not_be(tmp_path: Path) -> None:
    """`create=False` leaves no file behind."""
    path = tmp_path / "caviar.db"

    with pytest.raises(StorageError, match=r"no database '.*caviar.db'"):
        open_storage(f"sqlite:///{path}", create=False)
    path.touch()
    with pytest.raises(StorageError, match="holds no caviar database"):
        open_storage(f"sqlite:///{path}", create=False)

    assert path.stat().st_size == 0


def test_a_database_outlives_its_process(sqlite_url: str) -> None:
    """Closed and opened again, it holds what it held."""
    storage = open_storage(sqlite_url)
    storage.create_study(make_spec())
    storage.close()

    storage = open_storage(sqlite_url, create=False)

    assert storage.get_study("digits").data.source == "digits"
    storage.close()


def test_an_unreachable_server_is_named_without_its_password() -> None:
    """A port where nobody listens."""
    with pytest.raises(StorageError, match=r"Connection refused.*check that the server runs") as caught:
        open_storage("postgresql://me:secret@127.0.0.1:1/x")

    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def _open_and_close(url: str, barrier: multiprocessing.synchronize.Barrier) -> None:
    barrier.wait(60)
    open_storage(url).close()


def test_several_processes_may_make_one_database(database_url: str) -> None:
    """Eight processes that open a new database at once all find it whole."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(8)
    processes = [context.Process(target=_open_and_close, args=(database_url, barrier)) for _ in range(8)]

    for process in processes:
        process.start()
    for process in processes:
        process.join(120)

    assert [process.exitcode for process in processes] == [0] * 8
    storage = open_storage(database_url, create=False)
    assert storage.studies() == []
    storage.close()


def test_the_package_imports_no_database_library() -> None:
    """`import caviar.storage` is quick."""
    code = "import caviar.storage, sys; print([m for m in ('sqlalchemy', 'alembic', 'optuna') if m in sys.modules])"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)

    assert (result.stdout.strip(), result.stderr) == ("[]", "")
