"""The commands that keep studies: to a file and back, tags, notes, other names; and what none of them can do."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from caviar.storage import open_storage
from caviar.testing.storage import fill, make_result

if TYPE_CHECKING:
    from tests.acceptance.database.conftest import Command


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_study_goes_to_a_file_and_back(caviar: Command, suffix: str) -> None:
    """Under another name it answers as the first does."""
    caviar.run("export", "digits", "--to", f"study.{suffix}")
    done = caviar.run("import", f"study.{suffix}", "--name", "copy")

    assert "10 trials" in done.stderr and "'copy'" in done.stderr
    before, after = (caviar.json("query", name, "--format", "json") for name in ("digits", "copy"))
    assert [row | {"study": "digits"} for row in after] == before
    assert "exists already" in caviar.run("import", f"study.{suffix}", status=1).stderr


def test_studies_are_tagged_noted_renamed_and_deleted(on_sqlite: Command) -> None:
    """Each shows in `caviar studies`."""
    caviar = on_sqlite
    assert caviar.run("tag", "digits", "good", "first").stdout == "first\ngood\n"
    assert caviar.run("tag", "digits", "--remove", "first").stdout == "good\n"
    caviar.run("note", "digits", "it's\nfine")
    caviar.run("rename", "digits", "mine")

    (row,) = caviar.json("studies", "--tag", "good", "--format", "json")
    assert (row["study"], row["tags"], row["note"]) == ("mine", ["good"], "it's\nfine")
    assert caviar.run("note", "mine").stdout == "it's\nfine\n"
    assert caviar.json("studies", "--tag", "other", "--format", "json") == []
    assert "give --yes" in caviar.run("delete", "mine", status=1).stderr
    caviar.run("delete", "mine", "--yes")
    assert caviar.json("studies", "--format", "json") == []


def test_a_study_that_is_swept_is_not_deleted(caviar: Command) -> None:
    """Nor renamed; the message says who sweeps it."""
    storage = open_storage(caviar.url)
    storage.acquire_lease("digits", "somebody", 60)
    storage.close()

    for words in (("delete", "digits", "--yes"), ("rename", "digits", "other")):
        assert "is being swept by 'somebody'" in caviar.run(*words, status=1).stderr


def test_arguments_may_begin_with_a_minus(on_sqlite: Command) -> None:
    """Where a text, an expression or a statement is expected; what looks like an option stays one."""
    caviar = on_sqlite
    assert caviar.run("note", "digits", "-5 degrees").stdout == "-5 degrees\n"
    assert caviar.run("note", "digits", "--storage", caviar.url).stdout == "-5 degrees\n"
    assert len(caviar.json("query", "digits", "--where", "-1 < learning_rate", "--format", "json")) == 10
    assert caviar.json("sql", "-- comment\nselect 1 as a", "--format", "json") == [{"a": 1}]
    assert caviar.json("sql", "--format", "json", "-- comment\nselect 1 as a") == [{"a": 1}]

    for words in (
        ("note", "digits", "--storag"),
        ("note", "digits", "-x"),
        ("note", "digits", "--storag=x"),
        ("sql", "--limt"),
        ("sql", "--limt=3", "select 1"),
        ("query", "digits", "--where", "--sort", "number"),
        ("query", "digits", "--where", "--format=json"),
    ):
        assert "usage" in caviar.run(*words, status=2).stderr
    assert caviar.run("note", "digits").stdout == "-5 degrees\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("import",), "give either a FILE"),
        (("import", "x.csv", "--from-optuna", "sqlite:///x.db"), "give either a FILE"),
        (("import", "x.csv"), "there is no file 'x.csv'"),
        (("import", "x.xlsx"), "must end in .csv, .parquet, .jsonl"),
        (("import", "--from-optuna", "sqlite:///none.db"), "no database 'none.db'"),
        (("import", "--from-optuna", "mysql://x/y"), "unknown database 'mysql'"),
        (("export", "other", "--to", "x.csv"), "there is no study 'other'"),
        (("export", "digits", "--to", "no/x.csv"), "cannot write 'no/x.csv'"),
        (("tag", "digits", "a b"), "a tag must be a word"),
        (("rename", "digits", "a/b"), "must not hold '/'"),
        (("delete", "other", "--yes"), "there is no study 'other'"),
        (("dashboard", "--port", "70000"), "port must be 0 to 65535"),
        (("query", "digits", "--where", "val_accuracy >"), "at column 15: expected a name or a value"),
        (("query", "digits", "--where", "valacc > 1"), "unknown name 'valacc' .*did you mean 'val_accuracy'"),
        (("query", "digits", "--sort", "x"), "unknown name 'x'"),
        (("query", "digits", "--limit", "-1"), "limit must be at least 0"),
    ],
)
def test_what_cannot_be_done_says_why(on_sqlite: Command, words: tuple[str, ...], message: str) -> None:
    """One line, exit 1."""
    assert re.search(message, on_sqlite.run(*words, status=1).stderr)


def test_a_file_that_cannot_be_imported_makes_no_database(make_command: type[Command], tmp_path: Path) -> None:
    """A mistyped name leaves the folder as it was."""
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    command = make_command(tmp_path, "sqlite:///caviar.db")

    said = [command.run("import", name, status=1).stderr for name in ("none.jsonl", "other.csv")]

    assert "there is no file" in said[0]
    assert "no export of caviar" in said[1]
    assert [path.name for path in tmp_path.iterdir()] == ["other.csv"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "must be a URL such as sqlite:///caviar.db"),
        ("mysql://localhost/x", "unknown database 'mysql'"),
        ("sqlite:////no/such/folder/x.db", "there is no database"),
        ("postgresql://me:secret@127.0.0.1:1/x", "Connection refused"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named(
    make_command: type[Command], tmp_path: Path, url: str, message: str
) -> None:
    """By each command, without its password."""
    for words in (("studies",), ("sql", "select 1"), ("export", "x", "--to", "x.csv"), ("note", "x")):
        error = make_command(tmp_path, url).run(*words, status=1).stderr
        assert message in error
        assert "secret" not in error


@pytest.mark.parametrize("words", [("query", "x"), ("studies", "--tag", "x", "--limit"), ("show",), ()])
def test_a_url_in_the_wrong_place_is_quoted_without_its_password(on_sqlite: Command, words: tuple[str, ...]) -> None:
    """A slip of the pen is no reason to show it."""
    command = [on_sqlite.program, *words, "postgresql://me:SECRET@host/x?password=SECRET"]

    done = subprocess.run(command, cwd=on_sqlite.folder, capture_output=True, text=True, timeout=on_sqlite.timeout_s)

    assert done.returncode in (1, 2)
    assert "SECRET" not in done.stderr and "Traceback" not in done.stderr


def test_an_import_that_is_killed_leaves_nothing_for_long(on_sqlite: Command) -> None:
    """SIGTERM clears away what is half done; after kill -9 the next import does."""
    caviar, storage = on_sqlite, open_storage(on_sqlite.url)
    storage.delete_study("digits")
    fill(storage, [make_result(number) for number in range(4000)])
    caviar.run("export", "digits", "--to", "big.jsonl")

    for number in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(
            [caviar.program, "import", "big.jsonl", "--name", "copy", "--storage", caviar.url],
            cwd=caviar.folder, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not any("import-under-way" in summary.tags for summary in storage.studies()):
            assert time.monotonic() < deadline and process.poll() is None, "it was not seen under way"
        process.send_signal(number)
        process.communicate(timeout=60)
        left = [summary.spec.name for summary in storage.studies() if summary.spec.name != "digits"]
        if number == signal.SIGTERM:
            assert (process.returncode, left) == (130, [])
    assert [name.startswith("import-") for name in left] == [True]

    caviar.run("import", "big.jsonl", "--name", "copy")
    found = {summary.spec.name: (summary.n_trials, summary.tags) for summary in storage.studies()}
    assert found == {"digits": (4000, ()), "copy": (4000, ())}
    storage.close()
