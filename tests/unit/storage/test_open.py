"""Opening a database: what is made, and what is said where it cannot be."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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
        ("sqlite:///t.db?timeout=abc", r"unknown option 'timeout'.*known: mode=ro"),
        ("sqlite:///t.db?detect_types=x", r"unknown option 'detect_types'"),
        ("sqlite:///t.db?mode=rw", r"unknown option mode='rw'.*known: mode=ro"),
        ("sqlite+aiosqlite:///t.db", "must be pysqlite, found 'sqlite.aiosqlite'"),
        ("sqlite+pysqlcipher://:key@/t.db", "must be pysqlite"),
        ("sqlite:///\udcff.db", "no Unicode"),
        (f"postgresql://{'a' * 300}/x", "1 to 63 characters"),
        ("postgresql://a..b/x", "1 to 63 characters"),
        ("postgresql://127.0.0.1:1/a%00b", "NUL"),
        ("postgresql://127.0.0.1:1/x?port=zz", "port must be a number"),
        ("postgresql://127.0.0.1:1/x?host=a:1&host=b:zz", "cannot use the URL"),
        ("postgresql://127.0.0.1:1/x?row_factory=x", "unknown option 'row_factory'.*libpq"),
        ("postgresql://127.0.0.1:1/x?prepare_threshold=x", "unknown option 'prepare_threshold'"),
        ("postgresql://127.0.0.1:1/x?client_encoding=sql_ascii", "client_encoding must be utf8"),
        ("postgresql://127.0.0.1:1/x?connect_timeout=1&connect_timeout=2", "given twice"),
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


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:SECRET@127.0.0.1:abc/db",
        "postgresql://me:TOP@SECRET@127.0.0.1:1/db",
        "postgresql://me:TOP#SECRET/x@127.0.0.1:1/db",
        "postgresql://me:SECRET#127.0.0.1/db",
        "postgresql://me/x:SECRET@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/x?password=SECRET",
        "postgresql://127.0.0.1:1/x?pasword=SECRET",
        "postgresql://127.0.0.1:1/x?sslmode=bogus&sslpassword=SECRET",
        "postgresql:me:SECRET@127.0.0.1/x",
        "postgresql+psycopg2://me:SECRET@127.0.0.1/x",
        "mysql://me:SECRET@127.0.0.1/x",
        "sqlite://me:SECRET@127.0.0.1/x",
        "sqlite://me:SECRET@127.0.0.1:abc/x",
        "me:SECRET@127.0.0.1/x",
        "host=127.0.0.1 password=SECRET",
    ],
)
def test_no_message_shows_a_password(url: str) -> None:
    """Whatever is wrong with the URL."""
    with pytest.raises(StorageError) as caught:
        open_storage(url)

    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_database_opened_with_mode_ro_is_read_and_not_written(sqlite_url: str) -> None:
    """A write says what to do; a missing or an empty file stays as it is."""
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    with pytest.raises(StorageError, match="there is no database"):
        open_storage(f"{sqlite_url}?mode=ro")
    path.touch()
    with pytest.raises(StorageError, match="remove that to write"):
        open_storage(f"{sqlite_url}?mode=ro")
    assert path.stat().st_size == 0
    storage = open_storage(sqlite_url)
    storage.create_study(make_spec())
    storage.close()
    before = path.read_bytes()

    storage = open_storage(f"{sqlite_url}?mode=ro")
    assert storage.get_study("digits").name == "digits"
    with pytest.raises(StorageError, match="remove that to write") as caught:
        storage.delete_study("digits")
    storage.close()

    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


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


def test_a_file_on_a_disk_that_nobody_can_write_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is mounted read-only: SQLite makes no files beside it, whatever is in its name."""
    storage = open_storage(f"sqlite:///{tmp_path}/a b%23%25.db")
    storage.create_study(make_spec())
    storage.close()
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))

    found = open_storage(f"sqlite:///{tmp_path}/a b%23%25.db?mode=ro")

    assert [summary.spec.name for summary in found.studies()] == ["digits"]
    assert [path.name for path in tmp_path.iterdir()] == ["a b#%.db"]
    with pytest.raises(StorageError, match="mode=ro"):
        found.create_study(make_spec("other"))
    found.close()
