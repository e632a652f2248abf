"""What the commands of the trial database print, in every format, and where it cannot be written."""

from __future__ import annotations

import csv
import io
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from caviar.records import Reports, TrialResult, TrialState
from caviar.storage import open_storage
from caviar.testing.storage import AWKWARD_TEXTS, NUMBERS, make_spec, make_trial

if TYPE_CHECKING:
    from tests.acceptance.database.conftest import Command


def test_awkward_texts_are_printed(on_sqlite: Command) -> None:
    """In every format, with what would act on a terminal escaped in tables, and numbers that JSON lacks as null."""
    caviar = on_sqlite
    storage = open_storage(caviar.url)
    storage.create_study(make_spec("odd"))
    params = {f"p{index}": text for index, text in enumerate(AWKWARD_TEXTS)}
    trials = [
        make_trial(0, study="odd", state=TrialState.FAIL, params=params, error="\x1b[2J\ud800"),
        make_trial(1, study="odd", params={"p0": math.inf}, metrics={"val_loss": math.nan}, traceback="a\nb\x00\ud800"),
    ]
    storage.add_trials("odd", trials)
    storage.write("odd", [TrialResult(trial=trials[1], reports=Reports(1, ("m",), np.array([[math.nan]])))])
    storage.close()

    rows = caviar.json("query", "odd", "--format", "json")
    assert rows[0]["params"] == params
    assert (rows[1]["params"], rows[1]["metrics"]) == ({"p0": None}, {"val_loss": None})
    assert "\x1b" not in caviar.run("query", "odd").stdout
    caviar.run("query", "odd", "--format", "csv")
    caviar.run("show", "odd/0")
    shown = caviar.run("show", "odd/1").stdout
    assert "\\x00" in shown and "val_loss             nan" in shown
    assert caviar.json("show", "odd/1", "--json")["reports"] == [{"epoch": 1, "m": None}]


@pytest.mark.parametrize("text", ["a\rb", "\r", "a\r\nb", "a\nb", 'a"\r,b', "a,b", ""])
def test_every_text_comes_back_from_csv(on_sqlite: Command, text: str) -> None:
    """As Python's own reader reads it, also where lines end inside of it, in a value and in a name."""
    storage = open_storage(on_sqlite.url)
    storage.create_study(make_spec("odd"))
    trials = [make_trial(number, study="odd", params={"p": text, f"name {text}": 1}) for number in range(2)]
    storage.add_trials("odd", trials)
    storage.close()
    command = [on_sqlite.program, "query", "odd", "--format", "csv", "--storage", on_sqlite.url]

    printed = subprocess.run(command, capture_output=True, timeout=on_sqlite.timeout_s, check=True).stdout.decode()

    rows = list(csv.DictReader(io.StringIO(printed, newline="")))
    assert [(row["number"], row["params.p"], row[f"params.name {text}"]) for row in rows] == [
        ("0", text, "1"),
        ("1", text, "1"),
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words",
    [
        ("query", "digits", "--format", "json"),
        ("query", "digits", "--format", "csv"),
        ("query", "digits", "--format", "parquet"),
        ("query", "digits"),
        ("sql", f"{NUMBERS} select x from a", "--limit", "100000"),
        ("sql", f"{NUMBERS} select x from a", "--limit", "100000", "--format", "parquet"),
        ("show", "digits/0"),
        ("studies", "--format", "json"),
        ("tag", "digits", "good"),
        ("--help",),
        ("--version",),
    ],
)
def test_output_that_cannot_be_written_ends_in_one_line(
    on_sqlite: Command, words: tuple[str, ...], unbuffered: str
) -> None:
    """However much there is of it."""
    environment = os.environ | {"CAVIAR_STORAGE": on_sqlite.url, "PYTHONUNBUFFERED": unbuffered}

    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [on_sqlite.program, *words],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=on_sqlite.timeout_s,
        )

    assert done.returncode == 1
    found = [line for line in done.stderr.splitlines() if not line.startswith("caviar: note:")]
    assert found == ["caviar: error: cannot write the output: No space left on device; send it to another place"]


@pytest.mark.parametrize("format", ["table", "json", "csv", "parquet"])
def test_a_closed_stdout_is_no_error(on_sqlite: Command, format: str) -> None:
    """Whoever closed it wants no output."""
    script = 'exec "$0" query digits --format "$1" --storage "$2" >&-'

    done = subprocess.run(
        ["sh", "-c", script, on_sqlite.program, format, on_sqlite.url],
        stderr=subprocess.PIPE,
        text=True,
        timeout=on_sqlite.timeout_s,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_a_query_imports_nothing_heavy(caviar: Command) -> None:
    """Neither Ray nor Optuna, Numba, scikit-learn, SciPy, pandas, PyArrow or Alembic."""
    code = (
        "import sys; sys.argv = ['caviar', 'query', 'digits', '--where', 'val_accuracy > 0.5']\n"
        "from caviar.cli.main import main\n"
        "try: main()\n"
        "finally:\n"
        "  heavy = 'ray optuna numba sklearn scipy pandas pyarrow alembic torch'.split()\n"
        "  print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    environment = os.environ | {"CAVIAR_STORAGE": caviar.url}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert (done.returncode, done.stderr.strip()) == (0, "[]")
