"""The installed `caviar` command, as a user runs it: stdout is data, stderr is talk, exit codes tell how it went."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cyclopts import App

from caviar.cli.commands import app

if TYPE_CHECKING:
    from tests.acceptance.conftest import Caviar


def commands_of(part: App, *above: str) -> list[list[str]]:
    """Return the words of each command, those of its parts included."""
    names = [name for name in part if not name.startswith("-")]
    return [words for name in names for words in ([*above, name], *commands_of(part[name], *above, name))]


ALL_COMMANDS = commands_of(app)


def test_sweep_prints_one_json_object(caviar: Caviar) -> None:
    """With --json stdout is one object with the counts and the best trial; progress is on stderr."""
    done = caviar.run("sweep", "iris", "--workers", "0", "--trials", "3", "--epochs", "2", "--json")

    summary = json.loads(done.stdout)
    assert (summary["study"], summary["trials"], summary["complete"], summary["failed"]) == ("iris", 3, 3, 0)
    assert (summary["interrupted"], summary["ended_now"], summary["workers"]) == (False, 3, 1)
    assert 0 <= summary["best"]["metrics"]["test_accuracy"] <= 1
    assert done.stderr.startswith("iris: iris, 2 epochs a trial, seed 0")
    assert "3/3 trials" in done.stderr
    assert (caviar.folder / "caviar.db").is_file()


def test_sweep_again_does_nothing_and_more_trials_go_on(caviar: Caviar) -> None:
    """The budget is exact: the same command trains nothing, a larger number only what is missing."""
    sweep = ("sweep", "iris", "--workers", "0", "--epochs", "1", "--json", "--trials")
    caviar.run(*sweep, "2")
    before = caviar.json("query", "iris", "--format", "json")

    again, more = caviar.json(*sweep, "2"), caviar.json(*sweep, "5")

    assert (again["ended_now"], more["ended_now"]) == (0, 3)
    after = caviar.json("query", "iris", "--format", "json")
    assert [row["number"] for row in after] == [0, 1, 2, 3, 4]
    assert [row["params"] for row in after[:2]] == [row["params"] for row in before]


def test_a_sweep_that_prunes_says_how_many(caviar: Caviar) -> None:
    """In its JSON, its progress, and the study; it goes on so unasked."""
    sweep = ("sweep", "iris", "--workers", "0", "--epochs", "9", "--trials")
    caviar.run(*sweep, "40", "--prune")

    done = caviar.run(*sweep, "80", "--json")

    summary, study = json.loads(done.stdout), caviar.json("show", "iris", "--json")
    assert summary["pruned"] > 20 and summary["pruned"] + summary["complete"] + summary["failed"] == 80
    assert (study["prune"], study["states"]["PRUNED"]) == (True, summary["pruned"])
    assert done.stderr.startswith("iris: iris, up to 9 epochs a trial, ")
    assert f"80/80 trials, {summary['pruned']} pruned, 0 failed" in done.stderr
    refused = caviar.run(*sweep, "80", "--no-prune", status=1)
    assert "study 'iris' exists with prune = True, not False; leave these out" in refused.stderr


def test_sweep_prints_the_best_trial_and_what_to_do_next(caviar: Caviar) -> None:
    """Without --json stdout names the best trial and commands that work as they stand."""
    done = caviar.run("sweep", "iris", "--workers", "0", "--trials", "2", "--epochs", "1")

    assert re.match(r"best trial   iris/[01]\n", done.stdout)
    commands = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("  caviar ")]
    assert [words[0] for words in commands] == ["show", "query", "sweep"]
    for words in commands[:2]:
        caviar.run(*words)


def test_the_database_is_where_the_storage_option_says(caviar: Caviar, tmp_path: Path) -> None:
    """--storage goes before the default."""
    url = f"sqlite:///{tmp_path / 'other.db'}"

    caviar.run("sweep", "iris", "--workers", "0", "--trials", "1", "--epochs", "1", "--storage", url)

    assert not (tmp_path / "caviar.db").exists()
    assert caviar.json("studies", "--format", "json", "--storage", url)[0]["trials"] == 1


def test_the_database_is_where_the_environment_says(
    caviar: Caviar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CAVIAR_STORAGE goes before the default."""
    monkeypatch.setenv("CAVIAR_STORAGE", f"sqlite:///{tmp_path / 'other.db'}")

    caviar.run("sweep", "iris", "--workers", "0", "--trials", "1", "--epochs", "1")

    assert [path.name for path in tmp_path.glob("*.db")] == ["other.db"]


def test_a_space_file_is_sampled(caviar: Caviar) -> None:
    """Each trial has the params of the file; a wide linear range gets a note on stderr."""
    (caviar.folder / "space.toml").write_text("layers = 1\n[learning_rate]\nlow = 1e-4\nhigh = 1.0\n")

    done = caviar.run("sweep", "iris", "--space", "space.toml", "--workers", "0", "--trials", "2", "--epochs", "1")

    assert "caviar: note: learning_rate goes from 0.0001 to 1 on a linear scale" in done.stderr
    for row in caviar.json("query", "iris", "--format", "json"):
        assert sorted(row["params"]) == ["layers", "learning_rate"]


def test_studies_lists_them(swept: Caviar) -> None:
    """The JSON says what each study asks and how it stands; the table names it."""
    (row,) = swept.json("studies", "--format", "json")

    assert (row["study"], row["data"], row["trials"], row["states"]) == ("iris", "iris", 3, {"COMPLETE": 3})
    assert (row["metric"], row["direction"], row["epochs"], row["seed"]) == ("val_accuracy", "MAXIMIZE", 2, 0)
    assert "iris" in swept.run("studies").stdout


def test_query_prints_json(swept: Caviar) -> None:
    """Each row has the documented keys."""
    rows = swept.json("query", "iris", "--format", "json")

    assert [row["number"] for row in rows] == [0, 1, 2]
    documented = {"study", "number", "state", "value", "params", "metrics", "epoch", "seconds"}
    documented |= {"started_at", "finished_at", "parent", "error"}
    for row in rows:
        assert documented <= set(row)
        assert (row["state"], row["epoch"], row["error"]) == ("COMPLETE", 2, None)
        assert row["value"] == row["metrics"]["val_accuracy"]


def test_query_prints_csv(swept: Caviar) -> None:
    """There is a column for each param and metric, and the values are those of the JSON."""
    text = swept.run("query", "iris", "--format", "csv").stdout

    rows = swept.json("query", "iris", "--format", "json")
    for line, row in zip(csv.DictReader(io.StringIO(text)), rows, strict=True):
        assert int(line["number"]) == row["number"]
        assert float(line["params.learning_rate"]) == row["params"]["learning_rate"]
        assert float(line["metrics.val_loss"]) == row["metrics"]["val_loss"]


def test_query_filters_sorts_and_limits(swept: Caviar) -> None:
    """--where, --sort and --limit choose rows and their order."""
    rows = swept.json("query", "iris", "--format", "json")
    by_loss = sorted(rows, key=lambda row: -row["metrics"]["val_loss"])

    for descending in (["--sort=-val_loss"], ["--sort", "-val_loss"]):
        assert swept.json("query", "iris", "--format", "json", *descending, "--limit", "2") == by_loss[:2]
    some = swept.json("query", "iris", "--format", "json", "--where", f"val_loss < {by_loss[0]['metrics']['val_loss']}")
    assert sorted(row["number"] for row in some) == sorted(row["number"] for row in by_loss[1:])


def test_show_prints_a_study_and_a_trial(swept: Caviar) -> None:
    """A study comes with its best trial, a trial with its curve."""
    study, trial = swept.json("show", "iris", "--json"), swept.json("show", "iris/1", "--json")

    assert (study["study"], study["trials"], study["best"]["state"]) == ("iris", 3, "COMPLETE")
    assert [report["epoch"] for report in trial["reports"]] == [1, 2]
    assert trial["reports"][-1]["val_loss"] == trial["metrics"]["val_loss"]
    assert "COMPLETE" in swept.run("show", "iris").stdout
    assert "val_accuracy" in swept.run("show", "iris/1").stdout


@pytest.mark.parametrize(
    "words",
    [
        ["sweep"],
        ["sweep", "iris", "--trials", "many"],
        ["sweep", "iris", "--epochs", "2.6"],
        ["retest", "iris", "--best", "1e3"],
        ["sweep", "iris", "--trails", "3"],
        ["query", "iris", "--format", "xml"],
        ["query", "iris", "--limit"],
        ["unknown"],
        ["show", "a", "b"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(caviar: Caviar, words: list[str]) -> None:
    """stderr is one line that says what is wrong; stdout is empty and nothing is made."""
    done = caviar.run(*words, status=2)

    assert re.fullmatch(r"caviar: usage: .+; see `caviar( \w+)* --help`\n", done.stderr)
    assert done.stdout == ""
    assert list(caviar.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["swep"], 'Unknown command "swep". Did you mean "sweep"?; see `caviar --help`'),
        (["panda", "sat"], 'Unknown command "sat". Did you mean "status"?; see `caviar panda --help`'),
        (["query", "digits", "--limt"], "Unknown option: --limt. Did you mean --limit?; see `caviar query --help`"),
    ],
)
def test_usage_errors_name_the_page_that_helps(caviar: Caviar, words: list[str], message: str) -> None:
    """It is that of the command, and lists all that the message does not."""
    assert caviar.run(*words, status=2).stderr == f"caviar: usage: {message}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "none"], "none"),
        (["show", "iris/99"], "99"),
        (["show", "iris/"], "STUDY/NUMBER"),
        (["show", "iris/x"], "STUDY/NUMBER"),
        (["show", "iris/²"], "STUDY/NUMBER"),
        (["show", "iris/-1"], "STUDY/NUMBER"),
        (["show", "iris/" + "9" * 30], "9" * 30),
        (["show", "iris/" + "9" * 5000], "9"),
        (["query", "none"], "none"),
        (["query", "iris", "--limit=-1"], "limit must be at least 0, found -1"),
        (["query", "iris", "--where", "val_loss <"], "val_loss <"),
        (["query", "iris", "--sort", "nothing"], "nothing"),
        (["query", "iris", "--storage", "nosuch://x"], "nosuch"),
        (["query", "iris", "--storage", "sqlite:////no/such/folder/caviar.db"], "no/such/folder"),
        (["sweep", "iris", "--trials", "0"], "trials must be at least 1, found 0"),
        (["sweep", "iris", "--seed", "9"], "seed = 0, not 9"),
        (["sweep", "new", "--seed=-1"], "seed must be 0 to"),
        (["sweep", "new", "--metric", "f1"], "unknown metric 'f1'"),
        (["sweep", "new", "--data", "none.csv"], "none.csv"),
        (["sweep", "my data.csv", "--target", "y"], "as in: caviar sweep 'my data' --data 'my data.csv'"),
        (["sweep", "new", "--space", "none.toml"], "cannot read the space file 'none.toml'"),
        (["sweep", "a/b", "--workers", "0", "--trials", "1"], "a/b"),
        (["sweep", "", "--workers", "0", "--trials", "1"], "name"),
        (["sweep", "iris", "--workers=-2"], "workers must be at least 0"),
        (["refine", "none"], "none"),
        (["refine", "iris"], "expected at least 20 COMPLETE trials drawn from the space"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_errors_of_caviar_exit_with_1(swept: Caviar, words: list[str], message: str) -> None:
    """stderr ends in one line `caviar: error: `; stdout is empty."""
    done = swept.run(*words, status=1)

    assert re.fullmatch(r"(iris: .+\n)?caviar: error: .+\n", done.stderr)
    assert message in done.stderr
    assert done.stdout == ""


def test_a_database_that_is_not_there_is_an_error_for_readers(caviar: Caviar) -> None:
    """`query` does not make a database, and says so."""
    done = caviar.run("query", "iris", status=1)

    assert re.fullmatch(r"caviar: error: .+\n", done.stderr)
    assert list(caviar.folder.iterdir()) == []


def test_a_reader_that_closes_the_pipe_is_no_error(swept: Caviar) -> None:
    """`caviar query ... | head` ends without a complaint."""
    process = swept.start("query", "iris", "--format", "csv")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()

    assert process.stderr.read() == ""
    assert process.wait(swept.timeout_s) == 0
    process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_sweep_goes_on_with_the_same_command(caviar: Caviar, number: signal.Signals) -> None:
    """Ctrl-C exits with 130 and says what to do; the same command then reaches the exact budget."""
    words = ("sweep", "digits", "--workers", "0", "--trials", "150", "--epochs", "12", "--json")
    with caviar.start(*words) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("digits: ")
        process.stderr.readline()  # the first progress: training goes on
        process.send_signal(number)
        out, err = process.communicate(timeout=caviar.timeout_s)

    assert process.returncode == 130, err
    assert err.endswith("caviar: interrupted; run the same command to go on\n")
    first = json.loads(out)
    assert first["interrupted"] and first["complete"] < 150

    summary = caviar.json(*words)

    assert (summary["complete"], summary["ended_now"]) == (150, 150 - first["complete"])
    rows = caviar.json("query", "digits", "--format", "json")
    assert [(row["number"], row["state"], row["epoch"]) for row in rows] == [(n, "COMPLETE", 12) for n in range(150)]


def test_a_new_study_beside_one_of_nearly_its_name_is_noted(caviar: Caviar) -> None:
    """It may be a slip; one of another name, and one that is there, are not."""
    words = ("--data", "iris", "--workers", "0", "--trials", "1", "--epochs", "1")
    for name, noted in (("fraud", False), ("fruad", True), ("fruad", False), ("digits", False)):
        said = caviar.run("sweep", name, *words).stderr
        assert ("caviar: note: 'fruad' is a new study; there is a 'fraud', too\n" in said) is noted


def test_a_sweep_goes_on_where_nobody_listens(caviar: Caviar) -> None:
    """Whoever read stderr has left: all is trained, and told on stdout."""
    process = caviar.start("sweep", "digits", "--workers", "0", "--trials", "150", "--epochs", "12", "--json")
    assert process.stderr is not None and process.stdout is not None
    process.stderr.readline()
    process.stderr.close()

    summary = json.loads(process.stdout.read())

    assert process.wait(caviar.timeout_s) == 0
    process.stdout.close()
    assert (summary["complete"], summary["interrupted"]) == (150, False)


def test_python_runs_the_package(caviar: Caviar) -> None:
    """Where no `caviar` is on the path."""
    done = subprocess.run([sys.executable, "-m", "caviar", "--version"], capture_output=True, text=True, check=True)

    assert done.stdout == caviar.run("--version").stdout


@pytest.mark.ray
def test_a_sweep_on_ray_is_ended_without_noise(caviar: Caviar) -> None:
    """As batch systems end it; Ray would print a stack."""
    with caviar.start("sweep", "digits", "--workers", "1", "--trials", "9000") as process:
        assert process.stderr is not None
        while " running, " not in process.stderr.readline():  # so many are with Ray
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        err = process.communicate(timeout=caviar.timeout_s)[1]

    assert process.returncode == 130, err
    assert "SIGTERM" not in err and "@" not in err
    assert err.endswith("caviar: interrupted; run the same command to go on\n")


@pytest.mark.ray
def test_doctor_says_what_is_wrong_and_what_to_do(caviar: Caviar) -> None:
    """All is well here, first without a database; an address where nobody is and a lost server are problems."""
    fresh = caviar.json("doctor", "--json")
    caviar.run("sweep", "iris", "--workers", "0", "--trials", "1", "--epochs", "1")

    well = caviar.json("doctor", "--json")
    ill = caviar.run(
        "doctor", "--address", "127.0.0.1:1", "--storage", "postgresql://a:secret@127.0.0.1:1/b", status=1
    ).stdout

    assert fresh["ok"] is well["ok"] is True
    assert [node["facts"]["blas_threads"] for node in well["cluster"]["nodes"]] == [1]
    assert [node["n_cores"] for node in well["cluster"]["nodes"]] == [well["here"]["n_cores"]]
    assert well["database"]["latency_s"] > 0
    problems = [line for line in ill.splitlines() if line.startswith("problem")]
    assert [line.split()[1] for line in problems] == ["cluster", "database"]
    assert "python -m workers --head" in problems[0]
    assert "secret" not in ill


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)], ids=str)
def test_the_front_page_names_each_command_once(caviar: Caviar, words: tuple[str, ...]) -> None:
    """And is no wider than a terminal."""
    page = caviar.run(*words).stdout

    named = re.findall(r"^  (\w+)  +\S.+\.$", page, re.MULTILINE)
    assert sorted(named) == sorted(name for name in app if not name.startswith("-"))
    assert page.startswith("Usage: caviar ")
    assert max(map(len, page.splitlines())) <= 80


def test_an_option_is_not_taken_for_the_name_to_sort_by(swept: Caviar) -> None:
    """A forgotten name is said, instead of leaving the next option out."""
    done = swept.run("query", "iris", "--sort", "--limit", "1", status=2)

    assert "expected a name, found the option --limit" in done.stderr


def test_what_an_error_quotes_does_nothing_to_the_terminal(swept: Caviar) -> None:
    """Control characters of what was typed come back as text."""
    done = swept.run("show", "\x1b[2Jno", status=1)

    assert "\x1b" not in done.stderr
    assert "\\x1b[2Jno" in done.stderr


@pytest.mark.parametrize("command", ALL_COMMANDS, ids=" ".join)
def test_each_command_has_help(swept: Caviar, command: list[str]) -> None:
    """`--help` prints how it is used."""
    done = swept.run(*command, "--help")

    assert done.stdout.startswith(f"Usage: {' '.join(['caviar', *command])}")


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--help"], []),
        (["studies"], ["sqlalchemy"]),
        (["query", "iris", "--where", "val_accuracy > 0.5", "--sort", "-val_loss"], ["sqlalchemy"]),
        (["query", "iris", "--format", "json"], ["sqlalchemy"]),
    ],
)
def test_quick_commands_import_nothing_heavy(swept: Caviar, words: list[str], needed: list[str]) -> None:
    """Not even NumPy: what a command needs, it imports when it runs."""
    code = (
        f"import sys; sys.argv = {['caviar', *words]!r}\n"
        "from caviar.cli.main import main\n"
        "try: main()\n"
        "finally:\n"
        "  heavy = 'numpy ray optuna numba sklearn scipy pandas sqlalchemy torch'.split()\n"
        "  print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=swept.folder)

    assert (done.returncode, done.stderr.strip()) == (0, str(needed))
