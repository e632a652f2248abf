"""`caviar retest`: the best trials once more, from the command line."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Caviar

WORDS = ("retest", "my flowers", "--best", "2", "--times", "3", "--workers", "0")


@pytest.fixture
def flowers(caviar: Caviar) -> Caviar:
    """The command in a folder with a study `my flowers` of 20 trials."""
    done = caviar.run("sweep", "my flowers", "--data", "iris", "--trials", "20", "--epochs", "2", "--workers", "0")
    assert "  caviar retest 'my flowers'\n" in done.stdout
    return caviar


def test_a_table_tells_what_was_luck(flowers: Caviar) -> None:
    """One line a trial with its value then and again, best first; the params of the best; what to do next."""
    done = flowers.run(*WORDS)

    header, *lines = done.stdout.splitlines()
    assert re.split(r"  +", header.strip()) == ["trial", "val_accuracy then", "again", "lowest", "highest", "times"]
    rows = [line.split() for line in lines[:3]]
    names = [" ".join(row[:-5]) for row in rows[:2]]
    again = [float(row[-4]) for row in rows[:2]]
    assert again == sorted(again, reverse=True)
    assert [row[-1] for row in rows[:2]] == ["3", "3"]
    assert re.match(r"on average \S+ then, \S+ again", lines[2])
    assert lines[3] == f"best again   {names[0]}"
    assert lines[-1] == f"  caviar panda start '{names[0]}' --until-stopped"
    assert "26/26 trials" in done.stderr
    assert flowers.json("show", "my flowers", "--json")["trials"] == 26


def test_json_holds_each_repeat(flowers: Caviar) -> None:
    """With its name, state and value; run again, it is the same and nothing is trained."""
    answer = json.loads(flowers.run(*WORDS, "--json").stdout)

    assert (answer["study"], answer["interrupted"]) == ("my flowers", False)
    for one in answer["retests"]:
        values = [repeat["value"] for repeat in one["repeats"]]
        assert one["mean"] == pytest.approx(sum(values) / 3)
        first, *others = (
            flowers.json("show", name, "--json") for name in [one["trial"], *(r["trial"] for r in one["repeats"])]
        )
        assert first["value"] == one["value"] and first["params"] == one["params"]
        assert [(other["value"], other["params"]) for other in others] == [(value, one["params"]) for value in values]
    assert json.loads(flowers.run(*WORDS, "--json").stdout) == answer
    assert flowers.json("show", "my flowers", "--json")["trials"] == 26


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("none",), "there is no study 'none'"),
        (("my flowers", "--best", "0"), "best must be at least 1, found 0"),
        (("my flowers", "--workers=-1"), "workers must be at least 0"),
    ],
)
def test_errors_are_one_line(flowers: Caviar, words: tuple[str, ...], message: str) -> None:
    """And nothing is trained."""
    done = flowers.run("retest", *words, status=1)

    assert re.search(r"^caviar: error: .+\n\Z", done.stderr, re.MULTILINE)
    assert message in done.stderr and done.stdout == ""
    assert flowers.json("show", "my flowers", "--json")["trials"] == 20
