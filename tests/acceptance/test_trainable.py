"""`caviar sweep --trainable`, as a user types it."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Caviar

CODE = """
import time

def train(task):
    print("talk")
    for epoch in range(task.epochs):
        yield {"f1-macro": 1 - task.params["x"] / (epoch + 1), "number": task.params["x"]}

def raises(task):
    return {"loss": task.params["y"]}

def waits(task):
    open(f"begun {task.number}", "w").close()
    time.sleep(600)
"""


@pytest.fixture
def mine(caviar: Caviar) -> Caviar:
    """The command in a folder with functions and their space."""
    (caviar.folder / "mine.py").write_text(CODE)
    (caviar.folder / "x.toml").write_text("x = { low = 0.0, high = 1.0 }")
    return caviar


WORDS = ("--trainable", "mine.py", "--space", "x.toml", "--workers", "0", "--epochs", "3")


def test_what_is_said_of_a_study_of_a_function_is_true(mine: Caviar) -> None:
    """Data is on stdout, talk on stderr, and each command that is printed to go on with works."""
    metric = ("--metric", "f1-macro", "--direction", "maximize", "--trials", "4")
    done = mine.run("sweep", "s", *WORDS, *metric)

    assert "talk" in done.stderr and "talk" not in done.stdout
    assert done.stderr.startswith("s: 3 epochs a trial, seed 0, trained by mine.py:train\n")
    lines = done.stdout.splitlines()
    nexts = [line.split()[1:] for line in lines[lines.index("next") + 1 :]]
    assert [words[0] for words in nexts] == ["show", "query", "sweep"]
    for words in nexts:
        mine.run(*words, *(("--workers", "0") if words[0] == "sweep" else ()))
    rows = mine.json("query", "s", "--sort", "-value", "--format", "json")
    assert [row["value"] for row in rows] == sorted((row["value"] for row in rows), reverse=True)
    assert mine.json("query", "s", "--sort", "-`f1-macro`", "--format", "json") == rows
    (row,) = mine.json("studies", "--format", "json")
    assert (row["data"], row["trainable"]) == ("", f"{mine.folder}/mine.py:train")
    assert "best 0." in mine.run("show", "s/0").stdout or "f1-macro" in mine.run("show", "s/0").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sweep", "s", "--direction", "minimize"), "direction = maximize, not minimize"),
        (("query", "s", "--where", "val_accuracy > 0.5"), "val_accuracy"),
        (("panda", "start", "s/0"), "a function that trains in one go"),
        (("predict", "s", "digits"), "only the built-in network is exported as a model"),
        (("export", "s/0", "--to", "s.safetensors"), "only the built-in network"),
        (
            ("sweep", "t", "--trainable", "mine.py:trian", "--space", "x.toml", "--metric", "loss"),
            "did you mean 'train'?",
        ),
    ],
)
def test_what_cannot_be_is_told_in_one_line(mine: Caviar, words: tuple[str, ...], message: str) -> None:
    mine.run("sweep", "s", *WORDS, "--metric", "f1-macro", "--direction", "maximize", "--trials", "1")

    done = mine.run(*words, status=1)

    assert done.stderr.startswith("caviar: error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_sweep_without_a_result_says_why(mine: Caviar) -> None:
    """With one error, whose traceback is a command away."""
    words = ("--trainable", "mine.py:raises", *WORDS[2:], "--metric", "loss", "--trials", "2")
    done = mine.run("sweep", "s", *words)

    assert done.stdout.splitlines()[1] == "s/0 failed: KeyError: 'y'; see: caviar show s/0"
    assert "in raises" in mine.run("show", "s/0").stdout


def test_a_function_that_does_not_end_is_interrupted(mine: Caviar) -> None:
    """A second Ctrl-C ends it, where this process trains it; the trial waits for the next sweep."""
    words = ("sweep", "s", "--trainable", "mine.py:waits", *WORDS[2:], "--metric", "loss", "--trials", "2")
    process = mine.start(*words)
    deadline = time.monotonic() + 60
    while not (mine.folder / "begun 0").exists() and not (mine.folder / "begun 1").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)  # two signals at once are one
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert "Traceback" not in err
    states = [row["state"] for row in json.loads(mine.run("query", "s", "--format", "json").stdout)]
    assert states == ["WAITING", "WAITING"]
