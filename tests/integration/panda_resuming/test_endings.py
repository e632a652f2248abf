"""Where a babysat model stops, pauses, ends or diverges, and what goes on from there, by which rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caviar.errors import PandaBusy, RequestRejected, SettingsError
from caviar.nn.kernel import choose_kernel
from caviar.panda.shelf import Policy
from caviar.records import Status, TrialState
from caviar.study import Study
from caviar.testing.panda import (
    assert_as_retold,
    assert_same_state,
    babysit_elsewhere,
    end,
    last_checkpoint,
    make_study,
    retell,
    stored_state,
    train_to,
    train_within,
)


def test_stopped_within_an_epoch_a_child_goes_on_there(study: Study) -> None:
    """The mini-batches since the last epoch's end are not lost."""
    with study.panda() as panda:
        train_to(panda, 2)
        train_within(panda, 5)
        panda.stop()
        assert list(panda) == []
        stopped = panda.state

    trial = study.storage.get_trial("s", 0)
    assert (trial.state, trial.reason, trial.epoch) == (TrialState.COMPLETE, "stopped", 2)
    assert trial.value == study.reports(0).last["val_accuracy"]
    with study.panda(0, more_epochs=2) as child:
        assert_same_state(child.state, stopped)
        for _ in child:
            pass
    whole = retell(study, 0, (4, 0))
    assert_same_state(stored_state(study, last_checkpoint(study, 1)), whole.state)


def test_stopped_within_an_epoch_the_model_is_that_of_the_last_whole_one(study: Study) -> None:
    """Whose value the trial has, and so is what the test part says of it, however the mini-batches since then went."""
    with study.panda() as panda:
        train_to(panda, 2)
        best = panda.judge()
        panda.set(learning_rate=100.0)
        train_within(panda, 5)
        panda.stop()
        assert list(panda) == []
        assert panda.judge() == best

    trial, data, kernel = study.storage.get_trial("s", 0), study.data, choose_kernel("numpy")
    assert (trial.metrics["test_loss"], trial.metrics["test_accuracy"]) == tuple(best.values())
    model = study.model(0)
    parts = model.network, model.parameters, model.running, model.step
    assert kernel.evaluate(*parts, data.validation.x, data.validation.y)[0] == trial.metrics["val_loss"]
    assert kernel.evaluate(*parts, data.test.x, data.test.y) == tuple(best.values())


def test_a_batch_size_that_was_put_off_holds_for_what_goes_on(study: Study) -> None:
    """Set within the epoch in which the run is stopped, it would hold from the next one on."""
    with study.panda(params={"batch_size": 16}) as panda:
        train_to(panda, 2)
        train_within(panda, 3)
        panda.set(batch_size=45)
        panda.stop()
        assert list(panda) == []

    with study.panda(0, more_epochs=2) as child:
        assert child.params["batch_size"] == 45
        steps = [(report.epoch, report.step) for report in child]
    # 90 examples: 42 were left of the third epoch, and the fourth has two mini-batches
    assert steps == [(3, 2 * 6 + 3 + 1), (4, 2 * 6 + 3 + 1 + 2)]
    assert study.replay(1).is_identical


def test_a_run_that_has_ended_stays_as_it_is(study: Study) -> None:
    """Also for who has babysat it; a branch is a trial of its own."""
    with study.panda(epochs=3) as panda:
        assert len(list(panda)) == 3
        ended = study.storage.get_trial("s", 0)
        for verb in (lambda: panda.set(learning_rate=0.5), lambda: panda.rollback(epochs=1), panda.stop):
            with pytest.raises(RequestRejected, match=r"s/0 is COMPLETE and stays as it is; study\.panda\(0\) goes on"):
                verb()
        assert panda.branch(epochs=1).parent == "s/0"

    assert replace(study.storage.get_trial("s", 0), metrics=ended.metrics) == ended
    assert [i.kind for i in study.storage.sessions.interventions("s", 0) if i.status is Status.APPLIED] == ["branch"]


def test_a_session_is_entered_once(study: Study) -> None:
    """In it and after it, another one is opened."""
    panda = study.panda(epochs=3)
    with pytest.raises(SettingsError, match="a panda is used in `with`"):
        next(panda)
    with panda:
        for enter in (panda.__enter__, panda.__enter__):
            with pytest.raises(SettingsError, match=r"open another with study.panda"):
                enter()
        train_to(panda, 2)
    with pytest.raises(SettingsError, match=r"open another with study.panda"):
        panda.__enter__()
    with study.panda(0) as again:
        assert again.epoch == 2


def test_the_best_epoch_is_gone_back_to_as_nearly_as_there_are_checkpoints(study: Study) -> None:
    """The nearest before it is kept, however long ago it is, and whoever asks is told."""
    with study.panda(epochs=60, checkpoints=Policy(every=7, keep=1)) as panda:
        train_to(panda, 5)
        panda.set(learning_rate=1e-9)
        train_to(panda, 40)
        best = panda.best_epoch
        assert best is not None
        nearest = best // 7 * 7
        assert best % 7 and nearest < 35
        message = panda.rollback(best=True).message or ""

    assert f"to epoch {nearest}, step" in message
    assert f"; the best epoch, {best}, has no checkpoint" in message


def test_a_stop_whose_process_died_is_met_at_its_mini_batch(study: Study) -> None:
    """Although the last checkpoint is from the epoch's start."""
    panda = study.panda().__enter__()
    train_to(panda, 2)
    train_within(panda, 5)
    panda.stop()
    panda.scribe.flush()
    study.storage.sessions.release("s", 0, panda._owner)  # as if it had died here

    end(babysit_elsewhere(study, 0))

    found = stored_state(study, last_checkpoint(study, 0))
    assert study.storage.get_trial("s", 0).state is TrialState.COMPLETE
    assert found.point == (2, 5)
    assert_same_state(found, panda.state)
    panda.scribe.close()


def test_stopped_before_the_first_epoch_there_is_no_value(study: Study) -> None:
    """Such a trial is PRUNED, and a child goes on from it all the same."""
    with study.panda() as panda:
        panda.stop()
        assert list(panda) == []

    trial = study.storage.get_trial("s", 0)
    assert (trial.state, trial.value, trial.epoch) == (TrialState.PRUNED, None, 0)
    with study.panda(0, epochs=1) as child:
        assert len(list(child)) == 1


def test_epochs_are_raised_and_lowered_while_it_trains(study: Study) -> None:
    """It ends where the last word was, never before what it has."""
    with study.panda(epochs=4) as panda:
        train_to(panda, 2)
        panda.set(epochs=9)
        train_to(panda, 5)
        with pytest.raises(RequestRejected, match="5 are done already, found 3"):
            panda.set(epochs=3)
        panda.set(epochs=6)
        for _ in panda:
            pass

    trial = study.storage.get_trial("s", 0)
    assert (trial.epoch, trial.state, trial.reason) == (6, TrialState.COMPLETE, None)


def test_until_stopped_has_no_end(study: Study) -> None:
    """It trains past the study's epochs."""
    with study.panda(until_stopped=True) as panda:
        train_to(panda, 9)
        assert panda.epochs is None
        panda.stop()
        assert list(panda) == []


def test_a_pause_survives(study: Study) -> None:
    """Whoever takes the trial up again finds it paused, within its epoch too."""
    with study.panda() as panda:
        train_to(panda, 2)
        train_within(panda, 3)
        panda.apply("pause", {})
    with study.panda(0) as panda:
        assert panda.is_paused
        assert panda.state.point == (2, 3)
        panda.apply("resume", {})
        for _ in panda:
            pass

    assert study.storage.get_trial("s", 0).epoch == 6
    assert_as_retold(study, 0)


def test_rules_and_policy_are_changed_one_without_the_other(study: Study) -> None:
    """What is not given stays."""
    rules = {"patience": {"epochs": 3}}
    with study.panda(checkpoints=Policy(every=2, keep=3)) as panda:
        train_to(panda, 1)
    with study.panda(0, rules=rules) as panda:
        assert panda.policy == Policy(every=2, keep=3)
        assert list(panda._rules) == ["patience"]
    with study.panda(0, checkpoints=Policy(keep=7)) as panda:
        assert panda.policy == Policy(keep=7)
        assert list(panda._rules) == ["patience"]


def test_a_trial_that_ended_meanwhile_is_not_taken(study: Study) -> None:
    """Whoever had looked at it before is told, and changes nothing."""
    with study.panda() as panda:
        train_to(panda, 2)
    late = study.panda(0)
    with study.panda(0) as panda:
        panda.stop()
        assert list(panda) == []
    before = study.storage.get_trial("s", 0)

    with pytest.raises(PandaBusy, match="ended by another process, as COMPLETE"), late:
        pass

    assert study.storage.get_trial("s", 0) == before


def test_a_diverged_run_fails_and_is_branched_from(study: Study) -> None:
    """Without a rule NaN ends it; the message names the way on."""
    said: list[str] = []
    with study.panda(on_event=said.append) as panda:
        train_to(panda, 3)
        panda.state = replace(panda.state, parameters=np.full_like(panda.state.parameters, np.nan))
        assert list(panda) == []

    trial = study.storage.get_trial("s", 0)
    assert (trial.state, trial.reason, trial.error) == (TrialState.FAIL, "diverged", "diverged at epoch 4")
    assert trial.value is None
    assert any("caviar panda branch s/0 --best" in line for line in said)


def test_a_rule_takes_a_diverged_run_back(study: Study) -> None:
    """To its best epoch, at half the learning rate; as often as its limit says."""
    rules = {"diverged": {"limit": 2}}
    with study.panda(rules=rules) as panda:
        train_to(panda, 3)
        best = panda.best_epoch
        for divided in (2, 4):
            panda.state = replace(panda.state, parameters=np.full_like(panda.state.parameters, np.nan))
            panda._step()
            assert panda.epoch == best
            assert panda.params["learning_rate"] == 0.02 / divided
        panda.state = replace(panda.state, parameters=np.full_like(panda.state.parameters, np.nan))
        assert list(panda) == []

    assert study.storage.get_trial("s", 0).reason == "diverged"
    done = [i for i in study.storage.sessions.interventions("s", 0) if i.author == "rule:diverged"]
    assert [i.kind for i in done] == ["rollback", "rollback"]


@pytest.mark.parametrize("learning_rate", [0.3, 0.5, 1.0])
def test_a_rule_that_went_back_acts_once(tmp_path: Path, table: Path, learning_rate: float) -> None:
    """Left right after each rollback, a run has the deeds and the metrics that it has when it is not left."""
    # what the rule looks at may get worse where the study's metric is at its best: then it goes back to where it is
    rules = {"diverged": {"factor": 1.01, "metric": "train_loss"}}

    def babysit(is_left: bool) -> list[tuple[Any, ...]]:
        study = make_study(f"sqlite:///{tmp_path}/{is_left}.db", table, learning_rate=learning_rate, batch_size=16)
        left: list[str] = []
        with study.panda(epochs=25, rules=rules):
            pass
        while not study.storage.get_trial("s", 0).state.is_finished:
            left.clear()
            with study.panda(
                0,
                on_event=lambda line: left.append(line) if ": rollback: " in line else None,
                is_interrupted=lambda: is_left and bool(left),
            ) as panda:
                list(panda)
        done = [(i.kind, i.epoch, i.after, i.metrics_after) for i in study.storage.sessions.interventions("s", 0)]
        study.storage.close()
        return done

    undisturbed, disturbed = babysit(False), babysit(True)

    assert undisturbed, "nothing was done"
    assert disturbed == undisturbed
