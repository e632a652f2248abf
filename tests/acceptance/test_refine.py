"""`caviar refine`: coarse to fine, from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from caviar.space import SearchSpace

if TYPE_CHECKING:
    from tests.acceptance.conftest import Caviar

SPACE = """batch_size = 16
[learning_rate]
low = 1e-4
high = 1.0
scale = "log"
"""


@pytest.fixture
def coarse(caviar: Caviar) -> Caviar:
    """The command in a folder with a study `my flowers` of 40 trials, and its space file."""
    (caviar.folder / "coarse.toml").write_text(SPACE)
    words = ["--data", "iris", "--space", "coarse.toml", "--trials", "40", "--epochs", "3", "--workers", "0"]
    done = caviar.run("sweep", "my flowers", *words)
    assert "caviar refine 'my flowers'\n" in done.stdout
    return caviar


def test_the_study_is_narrowed_and_goes_on(coarse: Caviar) -> None:
    """The table says from what to what, and the command that it ends with draws from the narrower space."""
    done = coarse.run("refine", "my flowers")

    first, header, line, *_ = done.stdout.splitlines()
    assert first == "the best 6 of 40 trials"
    assert header.split() == ["param", "from", "to", "chance"]
    assert line.startswith("learning_rate  0.0001 to 1 (log)  0.")
    assert "version 2 of the space of my flowers" in done.stdout
    assert done.stdout.endswith("next\n  caviar sweep 'my flowers' --trials 80\n")
    coarse.run("sweep", "my flowers", "--trials", "43", "--workers", "0")
    space = coarse.json("show", "my flowers", "--json")["space"]
    rows = coarse.json("query", "my flowers", "--where", "space_version = 2", "--format", "json")
    assert len(rows) == 3
    bounds = space["learning_rate"]
    assert all(bounds["low"] <= row["params"]["learning_rate"] <= bounds["high"] for row in rows)
    assert (
        f"learning_rate        {bounds['low']:g} to {bounds['high']:g} (log)" in coarse.run("show", "my flowers").stdout
    )


def test_a_narrower_space_is_written_to_a_file(coarse: Caviar) -> None:
    """The study stays as it is until it is swept with that file."""
    answer = coarse.json("refine", "my flowers", "--best", "10", "--to", "fine.toml", "--json")

    fine = SearchSpace.from_toml(coarse.folder / "fine.toml")
    assert (answer["best"], answer["trials"], answer["space_version"]) == (10, 40, None)
    assert answer["space"] == fine.to_dict() != SearchSpace.from_toml(coarse.folder / "coarse.toml").to_dict()
    (param,) = answer["params"]
    assert param["narrower"] and param["param"] == "learning_rate" and param["chance"] < 0.05
    assert param["to"] == fine.to_dict()["learning_rate"] and param["from"]["low"] == 1e-4
    assert coarse.json("show", "my flowers", "--json")["space_version"] == 1
    next_words = coarse.run("refine", "my flowers", "--best", "10", "--to", "fine.toml").stdout.splitlines()[-1]
    assert next_words == "  caviar sweep 'my flowers' --trials 80 --space fine.toml --new-space"
    coarse.run("sweep", "my flowers", "--trials", "41", "--space", "fine.toml", "--new-space", "--workers", "0")
    assert coarse.json("show", "my flowers/40", "--json")["space_version"] == 2


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("no/such/fine.toml", "cannot write the space file 'no/such/fine.toml': No such file or directory"),
        ("folder.toml", "cannot write the space file 'folder.toml': Is a directory"),
        ("/dev/null", "expected a space file that ends in .toml, found '/dev/null'; name it so"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_line(coarse: Caviar, to: str, message: str) -> None:
    """Nothing is left beside it."""
    (coarse.folder / "folder.toml").mkdir()

    done = coarse.run("refine", "my flowers", "--to", to, status=1)

    assert (done.stdout, done.stderr) == ("", f"caviar: error: {message}\n")
    assert sorted(path.name for path in coarse.folder.iterdir()) == ["caviar.db", "coarse.toml", "folder.toml"]


def test_the_storage_is_named_and_the_end_of_the_space_is_told(coarse: Caviar) -> None:
    """What comes next is typed as it stands; a bound that the best trials reach may be too low."""
    url = f"sqlite:///{coarse.folder / 'caviar.db'}"

    done = coarse.run("refine", "my flowers", "--best", "6", "--storage", url)

    assert f"--trials 80 --storage {url}\n" in done.stdout
    assert "the best trials reach learning_rate = 1, where the space ends: try some above\n" in done.stdout


def test_nothing_is_changed_where_the_best_lie_everywhere(caviar: Caviar) -> None:
    """A param that no metric depends on is not narrowed; the study has no new version."""
    (caviar.folder / "space.toml").write_text('optimizer = "adam"\n[momentum]\nlow = 0.1\nhigh = 0.9\n')
    caviar.run(
        "sweep", "s", "--data", "iris", "--space", "space.toml", "--trials", "30", "--epochs", "1", "--workers", "0"
    )

    done = caviar.run("refine", "s")

    assert done.stdout.endswith("nothing is narrowed: of no param the best trials lie closer together than by chance\n")
    caviar.run("refine", "s", "--to", "none.toml")
    assert not (caviar.folder / "none.toml").exists()
    assert caviar.json("show", "s", "--json")["space_version"] == 1


def test_a_study_is_advised_on_in_words_and_as_json(coarse: Caviar) -> None:
    """Each piece of advice with a command that can be typed."""
    told = coarse.run("advise", "my flowers").stdout.splitlines()
    answer = coarse.json("advise", "my flowers", "--json")

    n = len(coarse.json("query", "my flowers", "--format", "json"))
    assert told[0].startswith(f"my flowers: {n} trials, the best is my flowers/")
    assert [line.split()[0] for line in told[2 : 2 + len(answer["params"])]] == [p["param"] for p in answer["params"]]
    assert sum(param["importance"] for param in answer["params"]) == pytest.approx(1)
    assert [line[2:] for line in told if line.startswith("- ")] == [point["text"] for point in answer["advice"]]
    commands = [point["command"] for point in answer["advice"] if point["command"]]
    assert [line.strip() for line in told if line.startswith("    caviar ")] == commands
    assert "caviar refine 'my flowers'" in commands
    assert coarse.run("advise", "none", status=1).stderr.startswith("caviar: error: ")


def test_refine_is_offered_where_it_works(caviar: Caviar) -> None:
    """Repeats count as trials of the study, and tell nothing new of its space."""
    words = ["--data", "iris", "--epochs", "2", "--workers", "0"]
    assert "refine" not in caviar.run("sweep", "flowers", "--trials", "16", *words).stdout
    caviar.run("retest", "flowers", "--best", "2", "--times", "4", "--workers", "0")
    assert "refine" not in caviar.run("sweep", "flowers", "--trials", "24", "--workers", "0").stdout
    caviar.run("refine", "flowers", status=1)

    assert "caviar refine flowers" in caviar.run("sweep", "flowers", "--trials", "28", "--workers", "0").stdout
    caviar.run("refine", "flowers")


def test_each_row_says_of_which_space_it_is_where_one_has_another(coarse: Caviar) -> None:
    """The first version is a version, too."""
    coarse.run("refine", "my flowers")
    n = len(coarse.json("query", "my flowers", "--format", "json"))
    coarse.run("sweep", "my flowers", "--trials", str(n + 2), "--workers", "0")

    header, *lines = coarse.run("query", "my flowers").stdout.splitlines()
    column = header.split().index("space_version") + 1  # a trial's name has two words
    assert sorted(line.split()[column] for line in lines) == ["1"] * n + ["2"] * 2
