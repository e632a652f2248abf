"""A babysat run whose process is killed or stopped, again and again, comes to what its record says."""

from __future__ import annotations

import os
import random
import signal
import uuid
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from caviar.errors import PandaBusy
from caviar.panda.shelf import Policy
from caviar.records import Intervention, Status, TrialState
from caviar.study import Study
from caviar.testing.panda import (
    DEADLINE_S,
    assert_as_retold,
    assert_same_state,
    babysit_elsewhere,
    epoch_of,
    files,
    intervention,
    last_checkpoint,
    request,
    stored_state,
    wait,
)

N_KILLS = 20


def kill(process: BaseProcess) -> None:
    """Kill a process and wait until it is gone."""
    process.kill()
    process.join(DEADLINE_S)
    assert process.exitcode is not None


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
            wait(lambda: intervention(study, asked[-1].token).status is not Status.ASKED, process)
        elif rng.random() < 0.7:
            before = len(sessions.checkpoints("s", 0))
            wait(lambda before=before: len(sessions.checkpoints("s", 0)) != before, process)
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
    assert intervention(study, request_stop.token).status is Status.APPLIED
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
    wait(lambda: intervention(study, paused).status is Status.APPLIED, process)
    sequence = intervention(study, paused).sequence
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
