"""Where a babysat model stops, pauses, ends or diverges, and what goes on from there, by which rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caviar.errors import PandaBusy, RequestRejected
from caviar.panda.shelf import Policy
from caviar.records import TrialState
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
