"""`caviar panda`, as a user types it: one process trains, others ask it for something."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from caviar.storage import open_storage

if TYPE_CHECKING:
    from tests.acceptance.conftest import Caviar

DEADLINE_S = 120.0


def wait_for(what: str, holds: Callable[[], Any]) -> Any:
    """Return what a condition gives as soon as it holds."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for: {what}")


@contextmanager
def babysat(caviar: Caviar, name: str, *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `caviar panda start`; give the trial's name and the process once it trains; kill it at the end."""
    process = caviar.start("panda", "start", name, *words)
    try:
        yield trained_by(caviar, process), process
    finally:
        process.kill()
        process.communicate()


def trained_by(caviar: Caviar, process: subprocess.Popen[str]) -> str:
    """Return the name of the trial that a process trains, once it does."""
    storage = open_storage(f"sqlite:///{caviar.folder / 'caviar.db'}")

    def find() -> str | None:
        assert process.poll() is None, process.communicate()
        held = [s for s in storage.sessions.all() if s.owner and f":{process.pid}:" in s.owner]
        names = [s.trial for s in held if storage.reports(*split(s.trial))]
        return names[0] if names else None

    try:
        return str(wait_for("the first epoch", find))
    finally:
        storage.close()


def split(name: str) -> tuple[str, int]:
    """Return study and number."""
    study, _, number = name.rpartition("/")
    return study, int(number)


@pytest.fixture(scope="module")
def swept_digits(tmp_path_factory: pytest.TempPathFactory, make_caviar: Callable[[Path], Caviar]) -> Caviar:
    """The command in a folder with a study `digits` of two trials of two epochs. Only read from it."""
    command = make_caviar(tmp_path_factory.mktemp("digits"))
    command.run("sweep", "digits", "--workers", "0", "--trials", "2", "--epochs", "2")
    return command


@pytest.fixture
def digits(swept_digits: Caviar, caviar: Caviar) -> Caviar:
    """The same, to be changed."""
    shutil.copy(swept_digits.folder / "caviar.db", caviar.folder)
    return caviar


def test_every_verb_reaches_a_running_panda(digits: Caviar) -> None:
    """Each verb of a second process is applied, waits for that, and says where; `stop` ends the first process."""
    with babysat(digits, "digits/0", "--until-stopped", "--keep", "5", "--json") as (name, process):

        def panda(verb: str, *words: str) -> str:
            return digits.run("panda", verb, name, *words).stdout.strip()

        done = panda("set", "learning_rate=0.003", "l2=0.01", "--note", "too fast")
        assert re.fullmatch(r"applied at epoch \d+, step \d+: learning_rate \S+ -> 0.003, l2 0 -> 0.01", done)
        assert digits.json("panda", "status", name, "--json")["settings"]["learning_rate"] == 0.003

        assert panda("pause").endswith(": paused")
        status = digits.json("panda", "status", name, "--json")
        assert status["condition"] == "paused"
        assert panda("checkpoint").startswith(f"applied at epoch {status['epoch']}, ")
        back = panda("rollback", "--epoch", str(status["epoch"] - 1), "--set", "momentum=0.5")
        assert f"to epoch {status['epoch'] - 1}, " in back
        # it goes on where the best epoch is the one that is left behind
        assert re.search(r"; momentum \S+ -> 0\.5(;|$)", back)
        assert panda("resume").endswith(": goes on")
        assert "was not paused" in panda("resume")

        branch = digits.json("panda", "branch", name, "--best", "--set", "learning_rate=0.02", "--json")
        assert branch["status"] == "applied"
        assert panda("stop").startswith("applied at epoch ")
        out, err = process.communicate(timeout=DEADLINE_S)

    assert process.returncode == 0, err
    final = json.loads(out)
    assert (final["state"], final["reason"], final["interrupted"]) == ("COMPLETE", "stopped", False)
    log = digits.json("panda", "log", name, "--json")
    kinds = ["set", "pause", "checkpoint", "rollback", "resume", "resume", "branch", "stop"]
    assert [entry["kind"] for entry in log] == kinds
    assert all(entry["by"] and "@" in entry["by"] for entry in log)
    assert (log[0]["note"], log[0]["after"]) == ("too fast", {"learning_rate": 0.003, "l2": 0.01})
    assert log[0]["metrics_before"] and log[0]["metrics_after"]
    number = branch["after"]["number"]
    assert digits.run("panda", "replay", name).stdout.startswith(f"identical: {name} trained again to epoch ")
    compared = digits.json("panda", "compare", name, "--json")
    assert [entry["intervention"]["kind"] for entry in compared] == ["set", "rollback"]
    assert digits.run("panda", "compare", name).stdout.count("val_loss") == 2
    (root,) = digits.json("show", "digits", "--tree", "--json")
    assert [child["number"] for child in root["children"]] == [split(name)[1]]
    (grandchild,) = root["children"][0]["children"]
    assert (grandchild["number"], grandchild["changed"]) == (number, {"learning_rate": 0.02})
    drawn = digits.run("show", "digits", "--tree").stdout
    assert f"└─ digits/{number}" in drawn
    assert "with learning_rate 0.02" in drawn


def test_what_cannot_be_done_is_said_in_one_line_and_the_run_goes_on(digits: Caviar) -> None:
    """Bad requests exit 1 with one line that tells what there is; the panda trains on."""
    rejected = [
        (["set", "hidden_units=8"], "'hidden_units' cannot be changed while a model is trained; learning_rate, mom"),
        (["set", "learning_rate=-1"], "learning_rate must be a number in (0, inf), found -1"),
        (["set", "learning_rate=fast"], "learning_rate must be a number in (0, inf), found 'fast'"),
        (["set", "learning_rate=nan"], "learning_rate must be a number in (0, inf), found nan"),
        (["set", "batch_size=1.5"], "batch_size must be a whole number in [2, inf), found 1.5"),
        (["set", "epochs=1"], "epochs is how many are trained in all: "),
        (["set", "learning_rate"], "expected NAME=VALUE, as in learning_rate=0.003, found 'learning_rate'"),
        (["set", "l2=1", "l2=2"], "l2 is set twice: 1 and 2"),
        (["set"], "set needs NAME=VALUE, with a NAME of learning_rate, "),
        (["rollback", "--epoch", "999999"], "there is no checkpoint of epoch 999999 (there are: "),
        (["rollback", "--epochs", "999999"], "there is no checkpoint of 999999 epochs ago: "),
        (["rollback", "--epochs", "-1"], "epochs are counted by whole numbers from 0, found -1"),
        (["rollback"], "name one checkpoint: --epoch E, --epochs K (so many epochs ago) or --best"),
        (["branch", "--best", "--epoch", "3"], "name one checkpoint: "),
        (["branch", "--best", "--set", "layers=3"], "'layers' cannot be changed while a model is trained; "),
        (["pause", "--timeout", "0"], "timeout must be a number of seconds above 0, found 0"),
    ]
    with babysat(digits, "digits/0", "--until-stopped") as (name, process):
        for words, expected in rejected:
            done = digits.run("panda", words[0], name, *words[1:], status=1)
            said = done.stdout + done.stderr
            assert expected in said, said
            assert said.count("\n") == 1, said
        busy = digits.run("panda", "start", name, status=1).stderr
        assert f"caviar: error: trial '{name}' is babysat by " in busy
        epoch = digits.json("panda", "status", name, "--json")["epoch"]
        wait_for("more epochs", lambda: digits.json("panda", "status", name, "--json")["epoch"] > epoch)
        assert process.poll() is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["start", "digits/9"], "study 'digits' has no trial 9 (it has 0 to 1)"),
        (["start", "nowhere/0"], "no study 'nowhere'"),
        (["start", "digits/x"], "a trial is named STUDY/NUMBER, found 'digits/x'"),
        (["start", "digits/0", "--epochs", "2"], "the model has 2 epochs already"),
        (["start", "digits/0", "--epochs", "many"], "epochs must be a whole number, or +K for K more, found 'many'"),
        (["start", "digits/0", "--set", "optimizer=sgd"], "'optimizer' cannot be changed while a model is trained"),
        (["start", "digits/0", "--keep", "-1"], "keep must be at least 0"),
        (["start", "digits/0", "--seed", "1"], "--data, --target and --seed are for a new study"),
        (["start", "digits/0", "--rules", "none.toml"], "could not read the rules 'none.toml'"),
        (["start", "digits", "--set", "speed=1"], "unknown param 'speed' (known: learning_rate, "),
        (
            ["set", "digits/0", "l2=0"],
            "digits/0 is not babysat, there is nobody to ask for set; babysit it: caviar panda",
        ),
        (["branch", "digits/0", "--best"], "digits/0 is not babysat, it has no checkpoints"),
        (["set", "digits/9", "l2=0"], "study 'digits' has no trial 9"),
        (["log", "digits/0"], "digits/0 is not babysat"),
        (["status", "digits/0"], "digits/0 is not babysat"),
    ],
)
def test_what_cannot_be_started_or_asked(swept_digits: Caviar, words: list[str], expected: str) -> None:
    """It exits 1, says why in one line, and leaves the study as it was."""
    done = swept_digits.run("panda", *words, status=1)

    assert expected in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    assert swept_digits.json("show", "digits", "--json")["trials"] == 2


def test_a_request_asked_twice_is_done_once(digits: Caviar) -> None:
    """The second command with one --id returns the outcome of the first; for something else the id is refused."""
    with babysat(digits, "digits/0", "--until-stopped") as (name, _):
        first = digits.run("panda", "set", name, "l2=0.5", "--id", "mine").stdout
        second = digits.run("panda", "set", name, "l2=0.5", "--id", "mine").stdout
        other = digits.run("panda", "set", name, "l2=0.25", "--id", "mine", status=1).stderr

        assert second == first
        assert "the id 'mine' was used for another request" in other
        assert len(digits.json("panda", "log", name, "--json")) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(digits: Caviar, number: signal.Signals) -> None:
    """Interrupted, it exits 130 and names the command that goes on, which does, at the epoch where it was."""
    with babysat(digits, "digits/0", "--epochs", "1000000", "--json") as (name, process):
        process.send_signal(number)
        out, err = process.communicate(timeout=DEADLINE_S)

    assert process.returncode == 130
    left = json.loads(out)
    assert left["interrupted"]
    assert f"caviar panda start {name}" in err.splitlines()[-1]
    assert digits.json("panda", "status", name, "--json")["condition"] == "not running"
    refused = digits.run("panda", "pause", name, status=1).stderr
    assert (
        f"{name} is not running, there is nobody to ask for pause; go on with it: caviar panda start {name}" in refused
    )
    assert digits.json("panda", "log", name, "--json") == []
    done = digits.json("panda", "start", name, "--epochs", "+3", "--json")
    assert (done["number"], done["epoch"]) == (left["number"], left["epoch"] + 3)
    assert done["state"] == "COMPLETE"


def test_a_request_to_a_panda_that_dies_is_applied_when_it_is_started_again(digits: Caviar) -> None:
    """The one who asked is told, and the request is not lost."""
    with babysat(digits, "digits/0", "--epochs", "1000000") as (name, process):
        digits.run("panda", "pause", name)  # it would hold the lock of the database, frozen while it writes
        os.kill(process.pid, signal.SIGSTOP)  # it lives, and does not answer
        with digits.start("panda", "set", name, "l2=0.125", "--id", "mine", "--timeout", "100") as asking:
            storage = open_storage(f"sqlite:///{digits.folder / 'caviar.db'}")
            wait_for("the request", lambda: storage.sessions.asked(*split(name)))
            storage.close()
            process.kill()
            _, err = asking.communicate(timeout=DEADLINE_S)

    assert asking.returncode == 1
    assert f"{name} stopped running before it answered; the request stays" in err
    with babysat(digits, name):
        answered = digits.run("panda", "set", name, "l2=0.125", "--id", "mine").stdout
        assert re.fullmatch(r"applied at epoch \d+, step \d+: l2 0 -> 0.125\n", answered)


def test_a_panda_at_rest_can_be_branched(digits: Caviar) -> None:
    """A finished panda is not changed; a new trial goes on from one of its checkpoints, once for each id."""
    ended = digits.json("panda", "start", "digits/1", "--epochs", "+4", "--json")
    name = f"digits/{ended['number']}"

    first = digits.json("panda", "branch", name, "--epoch", "4", "--set", "l2=0.5", "--id", "b", "--json")
    again = digits.json("panda", "branch", name, "--epoch", "4", "--set", "l2=0.5", "--id", "b", "--json")
    missing = digits.run("panda", "branch", name, "--epoch", "40", status=1).stdout
    refused = digits.run("panda", "set", name, "l2=0", status=1).stderr

    assert again == first
    assert missing == "rejected: there is no checkpoint of epoch 40 (there are: 2, 3, 4, 5, 6)\n"
    assert f"{name} is COMPLETE and stays as it is" in refused
    child = f"digits/{first['after']['number']}"
    done = digits.json("panda", "start", child, "--json")
    assert (done["state"], done["epoch"], done["parent"], done["params"]["l2"]) == ("COMPLETE", 6, name, 0.5)
    assert digits.json("show", name, "--json")["epoch"] == 6


def test_a_fresh_model_needs_no_sweep(caviar: Caviar) -> None:
    """A study that is not there is made; the params are those given, and the defaults."""
    words = ["--data", "iris", "--seed", "3", "--epochs", "4", "--set", "learning_rate=0.05", "optimizer=adam"]

    done = caviar.json("panda", "start", "mine", *words, "--json")

    assert (done["study"], done["number"], done["state"], done["epoch"]) == ("mine", 0, "COMPLETE", 4)
    assert (done["params"]["learning_rate"], done["params"]["optimizer"]) == (0.05, "adam")
    assert "test_accuracy" in done["metrics"]  # it is the best of its study
    assert caviar.json("show", "mine", "--json")["seed"] == 3
    shown = caviar.run("panda", "status").stdout
    assert shown.splitlines()[1].split()[:2] == ["mine/0", "COMPLETE"]


def test_a_model_that_diverges_says_how_to_go_on(caviar: Caviar) -> None:
    """It is FAIL, and exit 1; with a rule it goes back and ends well."""
    fast = ["--data", "iris", "--epochs", "60", "--set", "learning_rate=1e30", "optimizer=sgd", "l2=1"]
    (caviar.folder / "rules.toml").write_text("[diverged]\nlimit = 200\ndivide_learning_rate = 100\n")

    alone = caviar.run("panda", "start", "fast", *fast, status=1).stderr
    babysat = caviar.json("panda", "start", "fast", *fast, "--rules", "rules.toml", "--json")

    assert "caviar panda branch fast/0 --best" in alone
    assert re.search(r"caviar: error: fast/0 diverged at epoch \d+\n$", alone)
    assert babysat["state"] == "COMPLETE"
    log = caviar.json("panda", "log", "fast/1", "--json")
    assert {entry["by"] for entry in log} == {"rule:diverged"}


def test_data_that_changed_is_refused(caviar: Caviar) -> None:
    """A trial goes on only with the data that it was trained on."""
    table = caviar.folder / "table.csv"
    rows = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(60)]
    table.write_text("\n".join(["x,y,kind", *rows]) + "\n")
    caviar.run("panda", "start", "t", "--data", "table.csv", "--target", "kind", "--epochs", "2")
    table.write_text("\n".join(["x,y,kind", *rows[::-1], "9,9,a"]) + "\n")

    done = caviar.run("panda", "start", "t/0", status=1)

    assert "table.csv" in done.stderr
    assert done.stderr.count("\n") == 1
    assert caviar.json("show", "t", "--json")["trials"] == 1


def test_a_paused_panda_waits_when_it_is_started_again(digits: Caviar) -> None:
    """What was in force stays in force: it is paused until somebody resumes it."""
    with babysat(digits, "digits/0", "--epochs", "1000000") as (name, process):
        digits.run("panda", "pause", name)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 130

    with babysat(digits, name) as (name, _):
        paused = digits.json("panda", "status", name, "--json")
        digits.run("panda", "resume", name)
        wait_for("more epochs", lambda: digits.json("panda", "status", name, "--json")["epoch"] > paused["epoch"])

    assert paused["condition"] == "paused"


@pytest.mark.parametrize(("encoding", "curve"), [("utf-8", "\u28c0"), ("ascii", "....")])
def test_a_terminal_shows_the_curves(digits: Caviar, encoding: str, curve: str) -> None:
    """On a terminal loss and accuracy are drawn over the epochs, with what its encoding can show."""
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "PYTHONIOENCODING": encoding}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen(
        [digits.command, "panda", "start", "digits/0", "--epochs", "40"],
        cwd=digits.folder,
        stdout=subprocess.PIPE,
        stderr=terminal,
        env=environment,
    )
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # what a terminal gives that nobody writes to any more
        while part := os.read(screen, 65536):
            shown += part
    os.close(screen)
    process.communicate(timeout=DEADLINE_S)

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(encoding))
    assert process.returncode == 0, text
    last = text[text.rindex("digits/2 from epoch 2 of digits/0  COMPLETE  epoch 40 of 40") :]
    assert "loss" in last
    assert "accuracy" in last
    assert "learning_rate" in last
    assert set(curve) & set(last)
    assert max(len(line) for line in last.splitlines()) <= 80
