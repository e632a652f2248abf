"""What another process asks of a babysat run is answered, once, and of two who would babysit one is refused."""

from __future__ import annotations

import os
from typing import Any

import pytest

from caviar.errors import PandaBusy, RequestRejected
from caviar.panda.shelf import Policy
from caviar.records import Intervention, Status
from caviar.study import Study
from caviar.testing.panda import DEADLINE_S, assert_as_retold, babysit_elsewhere, epoch_of, intervention, request, wait


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
        wait(lambda: intervention(study, token).status is not Status.ASKED, process)
        return intervention(study, token)

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


def test_new_rules_and_policy_hold_from_the_next_start_on(study: Study) -> None:
    """What a start asks for replaces what the trial was babysat by."""
    with study.panda(epochs=9, checkpoints=Policy(keep=3)) as panda:
        next(panda)
    with study.panda(0, rules={"patience": {"epochs": 2, "improvement": 0.99}}, checkpoints=Policy(keep=2)) as panda:
        epochs = [report.epoch for report in panda]

    assert panda.policy.keep == 2
    assert epochs[-1] < 9 and panda.interventions[-1].author == "rule:patience"


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
