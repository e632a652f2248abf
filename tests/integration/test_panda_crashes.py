"""A babysat run whose process is killed, stopped or cut off, again and again, comes to what its record says."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from caviar.errors import CheckpointError, PandaBusy, RequestRejected, TrialNotFound
from caviar.panda.shelf import Policy
from caviar.records import Intervention, Status, TrialState
from caviar.space import SearchSpace
from caviar.study import Study, create_study, load_study
from caviar.testing.panda import (
    assert_as_retold,
    assert_same_state,
    babysit_elsewhere,
    last_checkpoint,
    stored_state,
    write_table,
)

if TYPE_CHECKING:
    from tests.integration.conftest import Server

DEADLINE_S = 120.0
N_KILLS = 20


@pytest.fixture
def make_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Study]]:
    """Make studies of small networks, 12 mini-batches an epoch, trained by the NumPy kernel."""
    table = write_table(tmp_path / "table.csv")
    made: list[Study] = []

    def make(url: str, **params: Any) -> Study:
        fixed = {"learning_rate": 0.02, "hidden_units": 6, "layers": 1, "batch_size": 8, "optimizer": "adam"}
        monkeypatch.setenv("CAVIAR_KERNEL", "numpy")
        monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path / "checkpoints"))
        space = SearchSpace(**{**fixed, **params})
        made.append(create_study("s", space, data=table, target="label", seed=3, epochs=60, storage=url))
        return made[-1]

    yield make
    for study in made:
        study.storage.close()


@pytest.fixture
def study(make_study: Callable[..., Study], sqlite_url: str) -> Study:
    """One in an SQLite file."""
    return make_study(sqlite_url)


def wait(condition: Callable[[], bool], process: BaseProcess) -> None:
    """Return once a condition holds; fail where it does not in time, or where the process has ended badly."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        process.join(0.005)  # which leaves it the processor meanwhile
        assert process.exitcode in (None, 0), f"the process ended with {process.exitcode}"


def kill(process: BaseProcess) -> None:
    """Kill a process and wait until it is gone."""
    process.kill()
    process.join(DEADLINE_S)
    assert process.exitcode is not None


def request(kind: str, **arguments: Any) -> Intervention:
    """Return a request to the trial."""
    return Intervention(trial="s/0", token=uuid.uuid4().hex, kind=kind, arguments=arguments, author="tester")


def epoch_of(study: Study) -> int:
    """Return the epochs that the trial has, as the database knows."""
    return study.storage.get_trial("s", 0).epoch


def wait_for_epochs(study: Study, process: BaseProcess, begun: int, more: int) -> None:
    """Wait until a trial has some more epochs than it had, or was rolled back."""
    wait(lambda: not begun <= epoch_of(study) < begun + more, process)


def random_request(rng: random.Random, epoch: int) -> Intervention:
    """Return something that a person may ask for."""
    match rng.randrange(7):
        case 0:
            return request("set", learning_rate=rng.choice([0.001, 0.01, 0.05]), l2=rng.choice([0.0, 0.01]))
        case 1:
            return request("set", batch_size=rng.choice([4, 8, 16]))
        case 2:
            return request("rollback", to="back", at=rng.randrange(1, 4), learning_rate=0.01)
        case 3:
            return request("rollback", to="best")
        case 4:
            return request("checkpoint")
        case 5:
            return request("branch", to="epoch", at=max(epoch - 1, 0), l2=0.001)
        case _:
            return request("set", learning_rate_decay=rng.choice([0.0, 0.01]), momentum=0.8)


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_killed_twenty_times_while_it_is_steered(
    make_study: Callable[..., Study], request: pytest.FixtureRequest, database: str
) -> None:
    """Each request is answered once; weights and reports are those of the record told anew."""
    n_kills = N_KILLS if database == "sqlite" else N_KILLS // 4
    study = make_study(request.getfixturevalue(f"{database}_url"))
    rng = random.Random(7)
    sessions = study.storage.sessions
    with study.panda(until_stopped=True):
        pass
    asked: list[Intervention] = []

    for _ in range(n_kills):
        process = babysit_elsewhere(study, 0)
        begun = epoch_of(study)
        for _ in range(rng.randrange(3)):
            wait_for_epochs(study, process, begun, rng.randrange(4))
            asked.append(sessions.ask(random_request(rng, epoch_of(study))))
        if rng.random() < 0.5 and asked:
            wait(lambda: sessions.intervention("s", 0, asked[-1].token).status is not Status.ASKED, process)  # type: ignore[union-attr]
        elif rng.random() < 0.7:
            before = len(sessions.checkpoints("s", 0))
            wait(lambda before=before: len(sessions.checkpoints("s", 0)) != before, process)  # type: ignore[misc]
        kill(process)

    asked.append(sessions.ask(request_stop := Intervention(trial="s/0", token="stop", kind="stop")))
    process = babysit_elsewhere(study, 0)
    process.join(DEADLINE_S)
    assert process.exitcode == 0

    record = sessions.interventions("s", 0)
    assert sorted(i.token for i in record) == sorted(i.token for i in asked)
    assert {i.status for i in record} <= {Status.APPLIED, Status.REJECTED}
    assert [i.sequence for i in record if i.status is Status.APPLIED] == list(
        range(1, sum(i.status is Status.APPLIED for i in record) + 1)
    )
    assert sessions.intervention("s", 0, request_stop.token).status is Status.APPLIED  # type: ignore[union-attr]
    assert study.storage.get_trial("s", 0).state is TrialState.COMPLETE
    assert_as_retold(study, 0)
    branches = sum(i.kind == "branch" and i.status is Status.APPLIED for i in record)
    assert study.summary().n_trials == 1 + branches


RULES = {
    "diverged": {"factor": 1.2, "metric": "train_loss"},
    "plateau": {"epochs": 2, "improvement": 0.02, "metric": "train_loss"},
    "patience": {"epochs": 9, "action": "pause", "improvement": 0.5},
}


def deed(past: Intervention) -> tuple[Any, ...]:
    """Return what an intervention did, but for when."""
    return past.kind, past.author, past.epoch, past.batch, dict(past.arguments), past.after, past.metrics_after


def babysit_with_rules(study: Study, number: int) -> None:
    """Babysit in this process, and resume whenever a rule has paused."""
    with study.panda(number) as panda:
        while not panda.is_over:
            for _ in panda:
                if panda.is_paused:
                    panda.apply("resume", {})


def test_rules_act_as_they_would_have_without_the_crashes(study: Study) -> None:
    """The same deeds at the same places, and the same weights."""
    options: dict[str, Any] = {"rules": RULES, "epochs": 25, "params": {"learning_rate": 0.3, "batch_size": 16}}
    with study.panda(**options):
        pass
    with study.panda(**options):
        pass
    sessions = study.storage.sessions
    # the key of what is random is the trial's number, so both start from one state
    first = stored_state(study, last_checkpoint(study, 0))
    (start,) = sessions.checkpoints("s", 1)
    from caviar.bootstrap import checkpoint_folder
    from caviar.training.checkpoint import save_checkpoint

    save_checkpoint(checkpoint_folder(study.storage) / start.path, first, study.storage.get_trial("s", 1).params)

    undisturbed = babysit_elsewhere(study, 1)
    resume_until_done(study, 1, undisturbed)
    rng = random.Random(3)
    for _ in range(7):
        process = babysit_elsewhere(study, 0)
        n = len(sessions.checkpoints("s", 0)) + len(sessions.interventions("s", 0))
        more = rng.randrange(1, 3)

        def moved(n: int = n, more: int = more) -> bool:
            if study.storage.get_trial("s", 0).state.is_finished or is_paused(study, 0):
                return True
            return len(sessions.checkpoints("s", 0)) + len(sessions.interventions("s", 0)) >= n + more

        wait(moved, process)
        kill(process)
        if study.storage.get_trial("s", 0).state.is_finished:
            break
        if is_paused(study, 0):
            resume(study, 0)
    if not study.storage.get_trial("s", 0).state.is_finished:
        resume_until_done(study, 0, babysit_elsewhere(study, 0))

    expected = [deed(i) for i in sessions.interventions("s", 1) if i.kind != "resume"]
    assert {i[0] for i in expected} >= {"set", "rollback"}
    assert [deed(i) for i in sessions.interventions("s", 0) if i.kind != "resume"] == expected
    assert_same_state(stored_state(study, last_checkpoint(study, 0)), stored_state(study, last_checkpoint(study, 1)))
    assert (study.reports(0).values == study.reports(1).values).all()


def is_paused(study: Study, number: int) -> bool:
    """Return whether the last pause has not been followed by a resume, asked for or done."""
    flags = [i.kind for i in study.storage.sessions.interventions("s", number) if i.kind in ("pause", "resume")]
    return bool(flags) and flags[-1] == "pause"


def resume(study: Study, number: int) -> None:
    """Ask that a trial goes on."""
    study.storage.sessions.ask(Intervention(trial=f"s/{number}", token=uuid.uuid4().hex, kind="resume"))


def resume_until_done(study: Study, number: int, process: BaseProcess) -> None:
    """Resume whenever a rule has paused, until the process ends well."""

    def is_done() -> bool:
        if is_paused(study, number):
            resume(study, number)
        return process.exitcode == 0

    wait(is_done, process)


@pytest.fixture
def stopped() -> Iterator[list[BaseProcess]]:
    """Processes that are killed afterwards, since they may be stopped."""
    processes: list[BaseProcess] = []
    yield processes
    for process in processes:
        process.kill()


def test_a_process_that_was_stopped_for_longer_than_its_lease_writes_nothing(
    study: Study, stopped: list[BaseProcess]
) -> None:
    """Another took over, went elsewhere and ended; the one that comes back is told, and leaves no file."""
    with study.panda(until_stopped=True):
        pass
    process = babysit_elsewhere(study, 0)
    wait(lambda: epoch_of(study) >= 3, process)
    sessions = study.storage.sessions
    # a process that is stopped within a transaction would keep the database to itself: one that waits has none
    paused = sessions.ask(request("pause")).token
    wait(lambda: sessions.intervention("s", 0, paused).status is Status.APPLIED, process)  # type: ignore[union-attr]
    sequence = sessions.intervention("s", 0, paused).sequence  # type: ignore[union-attr]
    wait(lambda: any(c.sequence == sequence for c in sessions.checkpoints("s", 0)), process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    stopped.append(process)
    session = sessions.get("s", 0)
    assert session is not None and session.owner is not None
    with pytest.raises(PandaBusy, match=str(process.pid)):
        study.panda(0).__enter__()
    sessions.renew("s", 0, session.owner, 1e-6)  # its time runs out
    with study.panda(0) as panda:
        panda.apply("resume", {})
        panda.rollback(epoch=1, learning_rate=0.001)
        next(panda)
        panda.stop()
        assert list(panda) == []
    sessions.ask(request("resume"))  # which it will want to answer
    before = (
        study.storage.get_trial("s", 0),
        sessions.checkpoints("s", 0),
        study.reports(0).values.tolist(),
        sessions.interventions("s", 0),
        files(study),
    )

    os.kill(process.pid, signal.SIGCONT)
    process.join(DEADLINE_S)

    assert process.exitcode == 1
    assert (
        study.storage.get_trial("s", 0),
        sessions.checkpoints("s", 0),
        study.reports(0).values.tolist(),
        sessions.interventions("s", 0),
        files(study),
    ) == before
    assert_as_retold(study, 0)


def files(study: Study) -> list[str]:
    """Return all files in the checkpoint folder."""
    from caviar.bootstrap import checkpoint_folder

    return sorted(str(path) for path in checkpoint_folder(study.storage).rglob("*.*"))


def test_two_people_set_the_same_value_at_once(study: Study) -> None:
    """Both are applied, one after the other; the second changes nothing."""
    with study.panda(until_stopped=True):
        pass
    sessions = study.storage.sessions
    process = babysit_elsewhere(study, 0)
    asked = [request("set", learning_rate=0.005), request("set", learning_rate=0.005)]
    for one in asked:
        sessions.ask(one)
    wait(lambda: not sessions.asked("s", 0), process)
    sessions.ask(request("stop"))
    process.join(DEADLINE_S)

    first, second = (sessions.intervention("s", 0, one.token) for one in asked)
    assert first is not None and second is not None
    assert (first.status, second.status) == (Status.APPLIED, Status.APPLIED)
    assert (first.before, first.after) == ({"learning_rate": 0.02}, {"learning_rate": 0.005})
    assert (second.before, second.after) == ({"learning_rate": 0.005}, {"learning_rate": 0.005})
    assert_as_retold(study, 0)


def test_every_verb_from_another_process(study: Study) -> None:
    """Each is answered, the wrong ones with why, and the run goes on."""
    with study.panda(until_stopped=True):
        pass
    sessions = study.storage.sessions
    process = babysit_elsewhere(study, 0)

    def ask(kind: str, **arguments: Any) -> Intervention:
        token = sessions.ask(request(kind, **arguments)).token
        wait(lambda: sessions.intervention("s", 0, token).status is not Status.ASKED, process)  # type: ignore[union-attr]
        answered = sessions.intervention("s", 0, token)
        assert answered is not None
        return answered

    wait(lambda: epoch_of(study) >= 2, process)
    good = [
        ask("set", learning_rate=0.003, epochs=10**6),
        ask("checkpoint"),
        ask("pause"),
        ask("pause"),
        ask("rollback", to="epoch", at=0),  # the start is always kept
        ask("branch", to="best", l2=0.01),
        ask("resume"),
        ask("resume"),
    ]
    bad = {
        "colour": ask("set", colour=3),
        "optimizer": ask("set", optimizer="sgd"),
        "learning_rate": ask("set", learning_rate=-1.0),
        "nan": ask("set", learning_rate=float("nan")),
        "batch_size": ask("set", batch_size=2.5),
        "epochs": ask("set", epochs=0),
        "text": ask("set", learning_rate="fast"),
        "set needs": ask("set"),
        "no checkpoint of epoch 999": ask("rollback", to="epoch", at=999),
        "whole numbers": ask("rollback", to="epoch", at=-1),
        "name one checkpoint": ask("rollback"),
        "cannot be changed": ask("branch", to="best", layers=3),
        "unknown request": ask("dance"),
    }
    assert process.exitcode is None
    stopped = ask("stop")
    process.join(DEADLINE_S)

    assert process.exitcode == 0
    assert [i.status for i in (*good, stopped)] == [Status.APPLIED] * 9, [i.message for i in good]
    assert {name: i.status for name, i in bad.items()} == dict.fromkeys(bad, Status.REJECTED)
    for words, answered in bad.items():
        if words not in ("nan", "text"):
            assert words in (answered.message or ""), answered.message
    assert "learning_rate, momentum" in (bad["colour"].message or "")
    assert [i.message for i in good[2:4]] == ["paused", "was paused already"]
    assert good[0].before == {"learning_rate": 0.02, "epochs": None}
    assert_as_retold(study, 0)


def test_a_second_panda_on_the_same_trial_is_refused(study: Study) -> None:
    """The message says who has it; the first goes on."""
    with study.panda(epochs=5) as panda:
        next(panda)
        before = study.storage.sessions.get("s", 0)
        with pytest.raises(PandaBusy, match=f"babysat by .*:{os.getpid()}"):
            study.panda(0, rules={"patience": {"epochs": 1}}, checkpoints=Policy(keep=1)).__enter__()
        assert study.storage.sessions.get("s", 0) == before
        assert [report.epoch for report in panda] == [2, 3, 4, 5]


@pytest.mark.postgres
def test_a_database_that_restarts_is_waited_for(server: Server, make_study: Callable[..., Study]) -> None:
    """Training goes on meanwhile, people are told, and nothing is missing in the end."""
    study, said = make_study(server.url), []
    with study.panda(epochs=9, on_event=said.append) as panda:
        next(panda)
        panda.set(learning_rate=0.01)
        server.stop()
        epochs = [next(panda).epoch for _ in range(3)]
        server.start()
        epochs += [report.epoch for report in panda]

    assert epochs == list(range(2, 10))
    assert any("training goes on" in line for line in said) and "the database answers again" in said
    assert study.trials()[0].state is TrialState.COMPLETE
    assert len(study.storage.reports("s", 0)) == 9
    assert study.replay(0).is_identical


def test_new_rules_and_policy_hold_from_the_next_start_on(study: Study) -> None:
    """What a start asks for replaces what the trial was babysat by."""
    with study.panda(epochs=9, checkpoints=Policy(keep=3)) as panda:
        next(panda)
    with study.panda(0, rules={"patience": {"epochs": 2, "improvement": 0.99}}, checkpoints=Policy(keep=2)) as panda:
        epochs = [report.epoch for report in panda]

    assert panda.policy.keep == 2
    assert epochs[-1] < 9 and panda.interventions[-1].author == "rule:patience"


FULL_DISK = """
import resource, signal, sys
from caviar.cli.panda_start import _text
from caviar.study import load_study

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
study = load_study("s", storage=sys.argv[1])
said = []
with study.panda(0, on_event=said.append) as panda:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    for report in panda:
        if report.epoch == 3:
            panda.scribe.flush()
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), limit[1]))
        if report.epoch == 5:
            try:
                panda.checkpoint()
            except Exception as error:
                print(type(error).__name__, error)
            try:
                panda.branch(epoch=2)
            except Exception as error:
                print(type(error).__name__, error)
        if report.epoch == 6:
            panda.scribe.flush()
            if sys.argv[2] == "ends":
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            else:
                break
print("SAID", *said, sep="\\n")
print(_text(study, panda, None))
"""


@pytest.mark.parametrize("then", ["ends", "is left"])
@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX's")
def test_with_a_full_disk_training_goes_on_without_checkpoints(
    make_study: Callable[..., Study], postgres_url: str, then: str
) -> None:
    """Whoever asks for a checkpoint is told; no half file is left; later the run goes on from what there is."""
    study = make_study(postgres_url)  # the limit holds for every file of the process, so its database is elsewhere
    with study.panda(epochs=8):
        pass
    size = last_checkpoint(study, 0).size_bytes

    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, postgres_url, then, str(size // 2)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "RequestRejected could not write the checkpoint" in done.stdout
    assert done.stdout.count("RequestRejected") == 2, done.stdout
    assert "training goes on without this checkpoint" in done.stdout
    assert not [name for name in files(study) if name.endswith(".part")]
    known = study.storage.sessions.checkpoints("s", 0)
    assert {c.epoch for c in known} == ({0, 1, 2, 3, 7, 8} if then == "ends" else {0, 1, 2, 3})
    with_files = {name for name in files(study) if "/0/" in name}
    assert len(with_files) == len(known)
    if then == "is left":
        assert (
            "left at epoch 6, of which no checkpoint could be written: the last that was is of epoch 3" in done.stdout
        )
        with study.panda(0) as panda:
            assert panda.epoch == 3
            assert [report.epoch for report in panda] == [4, 5, 6, 7, 8]
    assert study.storage.get_trial("s", 0).epoch == 8
    assert_as_retold(study, 0)
    with pytest.raises(TrialNotFound):  # the branch that could not begin
        study.storage.get_trial("s", 1)


def test_without_room_for_checkpoints_a_fresh_model_leaves_no_trial(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command begins it, once the folder can be made."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path / "file" / "folder"))

    with pytest.raises(CheckpointError, match="could not make the folder"):
        study.panda()
    assert study.summary().n_trials == 0
    monkeypatch.setenv("CAVIAR_CHECKPOINTS", str(tmp_path / "folder"))

    with study.panda(epochs=2) as panda:
        assert panda.trial.number == 0
        assert [report.epoch for report in panda] == [1, 2]
    assert_as_retold(study, 0)


def test_a_copy_of_a_database_leaves_the_checkpoints_of_the_first_alone(
    study: Study, tmp_path: Path, sqlite_url: str
) -> None:
    """With one folder for both, each goes on from its own last checkpoint and is the run of its own record."""
    with study.panda(epochs=20, checkpoints=Policy(keep=2)) as panda:
        while panda.epoch < 6:
            next(panda)
    known = {c.path for c in study.storage.sessions.checkpoints("s", 0)}
    with (
        sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as first,
        sqlite3.connect(tmp_path / "copy.db") as second,
    ):
        first.backup(second)
    copy = load_study("s", storage=f"sqlite:///{tmp_path / 'copy.db'}")

    with copy.panda(0, epochs=12) as panda:
        assert panda.epoch == 6
        assert len(list(panda)) == 6

    there_are = files(study)
    assert all(any(file.endswith(path) for file in there_are) for path in known)
    assert len([c for c in copy.storage.sessions.checkpoints("s", 0) if not c.pins]) <= 2
    with study.panda(0, params={"learning_rate": 0.01}) as panda:
        assert panda.epoch == 6
        assert len(list(panda)) == 14
    for one in (study, copy):
        assert_as_retold(one, 0)
        assert one.replay(0).is_identical
    copy.storage.close()


def test_a_branch_that_a_crash_cut_short_is_finished(study: Study) -> None:
    """The same request, asked again, finds the trial and writes what it lacks."""
    with study.panda(epochs=4, checkpoints=Policy()) as panda:
        next(panda)
        made = panda.branch(epoch=1)
        token = panda.interventions[-1].token
    sessions = study.storage.sessions
    sessions.acquire("s", made.number, "x", 60)
    start = sessions.checkpoints("s", made.number)
    from caviar.records import TrialResult

    sessions.write(TrialResult(trial=made), "x", forgotten=start)
    sessions.release("s", made.number, "x")

    with study.panda(0) as panda:
        again = panda._answer(Intervention(trial="s/0", token=token, kind="branch", arguments={"to": "epoch", "at": 1}))

    assert again.after is not None and again.after["number"] == made.number
    assert [c.epoch for c in sessions.checkpoints("s", made.number)] == [1]
    assert study.summary().n_trials == 2


def test_what_was_asked_while_nobody_trained_is_applied(study: Study) -> None:
    """A request that was accepted and not yet applied is not lost."""
    with study.panda(epochs=4) as panda:
        next(panda)
    asked = study.storage.sessions.ask(request("set", learning_rate=0.001))

    with study.panda(0) as panda:
        for _ in panda:
            pass

    found = study.storage.sessions.intervention("s", 0, asked.token)
    assert found is not None
    assert (found.status, found.epoch, found.batch) == (Status.APPLIED, 1, 0)
    with pytest.raises(RequestRejected), study.panda(0, params={"colour": 1}):
        pass
