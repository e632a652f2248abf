"""A babysat model goes on, in whatever process, to the bits that it would have come to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caviar.bootstrap import checkpoint_folder
from caviar.errors import CheckpointError, DataError, PandaBusy, RequestRejected
from caviar.nn.kernel import choose_kernel
from caviar.panda.asking import trains_again_to
from caviar.panda.session import PandaSession
from caviar.panda.shelf import Policy
from caviar.records import StoredCheckpoint, TrialState
from caviar.space import SearchSpace
from caviar.study import Study, create_study, load_study
from caviar.testing.panda import (
    assert_as_retold,
    assert_same_state,
    babysit_elsewhere,
    last_checkpoint,
    retell,
    stored_state,
    write_table,
)
from caviar.training.advance import advance

OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam")
DEADLINE_S = 120


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """150 examples, 90 of which are trained on."""
    return write_table(tmp_path / "table.csv")


def make_study(url: str, table: Path, **params: Any) -> Study:
    """Create a study of small networks, 12 mini-batches an epoch."""
    fixed = {"learning_rate": 0.02, "hidden_units": 6, "layers": 1, "batch_size": 8, "optimizer": "adam", **params}
    return create_study("s", SearchSpace(**fixed), data=table, target="label", seed=3, epochs=6, storage=url)


@pytest.fixture
def study(sqlite_url: str, table: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    """A study trained by the NumPy kernel."""
    monkeypatch.setenv("CAVIAR_KERNEL", "numpy")
    made = make_study(sqlite_url, table)
    monkeypatch.delenv("CAVIAR_KERNEL")
    yield made
    made.storage.close()


def train_to(panda: PandaSession, epoch: int) -> None:
    """Train until an epoch is done."""
    while panda.epoch < epoch:
        next(panda)


def train_within(panda: PandaSession, batch: int) -> None:
    """Train some mini-batches of the epoch under way, as the session itself does between two looks at its requests."""
    advanced = panda._trainer.advance(panda.state, panda.course.params, (panda.epoch, panda.state.batch + batch))
    assert advanced.state is not None
    panda.state = advanced.state


def end(process: Any) -> None:
    """Wait for a process, which must end well."""
    process.join(DEADLINE_S)
    assert process.exitcode == 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kernel", ["numpy", "compiled"])
def test_a_run_in_three_processes_is_one_run(
    sqlite_url: str, table: Path, kernel: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each optimizer and kernel: left at an epoch and within one, taken up in another process, branched."""
    monkeypatch.setenv("CAVIAR_KERNEL", kernel)
    study = make_study(sqlite_url, table, optimizer=optimizer)
    monkeypatch.delenv("CAVIAR_KERNEL")

    with study.panda() as panda:
        train_to(panda, 2)
        start = panda.state
    with study.panda(0) as panda:
        train_to(panda, 3)
        panda.set(learning_rate=0.01, l2=0.001)
        train_within(panda, 5)
        panda.set(learning_rate=0.005, batch_size=16, momentum=0.8)
        branch = panda.branch(epoch=2, learning_rate=0.03)
    end(babysit_elsewhere(study, 0))
    end(babysit_elsewhere(study, branch.number, params={"epochs": 4}))

    assert study.storage.get_trial("s", 0).epoch == 6
    assert_as_retold(study, 0)
    assert study.storage.get_trial("s", branch.number).params["learning_rate"] == 0.03
    assert_as_retold(study, branch.number, start)
    (steered, within) = (i for i in study.storage.sessions.interventions("s", 0) if i.kind == "set")
    assert (steered.epoch, steered.batch, within.epoch, within.batch) == (3, 0, 3, 5)
    study.storage.close()


def test_training_is_training_to_a_checkpoint_and_on(study: Study) -> None:
    """The babysat run is what `advance` gives in one go, for any policy of keeping checkpoints."""
    with study.panda(checkpoints=Policy(every=4, keep=1)) as panda:
        train_to(panda, 3)
    end(babysit_elsewhere(study, 0))

    data, kernel = study.data, choose_kernel("numpy")
    whole = advance(retell(study, 0, (0, 0)).state, study.storage.get_trial("s", 0).params, data, 6, kernel=kernel)
    assert_same_state(stored_state(study, last_checkpoint(study, 0)), whole.state)
    assert np.array_equal(study.reports(0).values, whole.reports.values)


def test_a_new_learning_rate_changes_the_very_next_update(study: Study) -> None:
    """A rate of nearly nothing leaves the weights where they are."""
    with study.panda() as panda:
        train_to(panda, 1)
        train_within(panda, 3)
        panda.set(learning_rate=1e-30)
        before = panda.state.parameters
        train_within(panda, 1)

        assert panda.state.step == 12 + 4
        assert np.allclose(panda.state.parameters, before, rtol=0, atol=1e-20)


def test_several_rollbacks_and_one_to_the_start(study: Study) -> None:
    """The record tells the whole way, and the run goes on from each target."""
    with study.panda(epochs=9) as panda:
        train_to(panda, 4)
        panda.rollback(epochs=2, learning_rate=0.01)
        train_to(panda, 5)
        train_within(panda, 4)
        panda.set(batch_size=32)
        panda.rollback(epoch=3)
        assert panda.params["batch_size"] == 32
        train_to(panda, 4)
        panda.rollback(epoch=0)
        assert panda.epoch == 0 and panda.history == {}
        train_to(panda, 2)
    end(babysit_elsewhere(study, 0))

    assert study.storage.get_trial("s", 0).epoch == len(study.reports(0)) == 9
    assert_as_retold(study, 0)


def test_a_crash_right_after_a_rollback_goes_on_from_its_target(study: Study) -> None:
    """No checkpoint has been made on the new timeline yet; the settings are those of the rollback."""
    panda = study.panda().__enter__()
    train_to(panda, 4)
    panda.rollback(epoch=1, learning_rate=0.005)
    panda.scribe.flush()
    storage = study.storage.sessions
    storage.release("s", 0, panda._owner)  # as if it had died here

    with study.panda(0) as again:
        assert (again.epoch, again.state.batch) == (1, 0)
        assert again.params["learning_rate"] == 0.005
        for _ in again:
            pass

    assert_as_retold(study, 0)
    with pytest.raises(PandaBusy, match="was lost"):
        panda.set(l2=0.1)
    panda.scribe.close()


def test_training_an_epoch_again_up_to_an_intervention_within_it_is_told(study: Study) -> None:
    """From the crash until the intervention is met; a checkpoint there says that it was, also after another crash."""

    def told() -> tuple[int, int] | None:
        storage = study.storage.sessions
        trial, session = study.storage.get_trial("s", 0), storage.get("s", 0)
        assert session is not None
        return trains_again_to(trial, session, storage.interventions("s", 0), storage.checkpoints("s", 0))

    panda = study.panda().__enter__()
    train_to(panda, 2)
    train_within(panda, 5)
    panda.set(learning_rate=0.005)
    panda.scribe.flush()
    assert told() is None
    study.storage.sessions.release("s", 0, panda._owner)  # as if it had died here

    again = study.panda(0).__enter__()
    assert (again.epoch, again.state.batch) == (2, 0)
    again.scribe.flush()
    assert told() == (2, 29)
    again._step()  # up to what was recorded
    again._follow_record()
    again.scribe.flush()
    assert told() is None
    study.storage.sessions.release("s", 0, again._owner)

    with study.panda(0) as last:
        assert (last.epoch, last.state.batch) == (2, 5)
        assert told() is None
        for _ in last:
            pass
    assert_as_retold(study, 0)
    assert study.replay(0).is_identical
    panda.scribe.close()
    again.scribe.close()


def test_the_best_checkpoint_is_the_studys_best(study: Study) -> None:
    """`best` goes to the epoch with the best value, or the start where no epoch is done."""
    with study.panda() as panda:
        panda.rollback(best=True)
        assert panda.epoch == 0
        train_to(panda, 5)
        best = panda.best_epoch
        panda.rollback(best=True)

        values = study.reports(0).values[:, 2]
        assert panda.epoch == best == int(np.argmax(values)) + 1 or values[best - 1] == values.max()


def test_a_branch_outlives_a_rollback_behind_it(study: Study) -> None:
    """Its checkpoint is kept although it is no longer part of the trial's past, where one cannot go back to it."""
    with study.panda(epochs=8, checkpoints=Policy(keep=1)) as panda:
        train_to(panda, 3)
        branch = panda.branch(epoch=3)
        train_to(panda, 4)
        panda.set(l2=0.01)
        panda.rollback(epoch=3)
        panda.rollback(epoch=0)
        train_to(panda, 2)
        with pytest.raises(RequestRejected, match=r"no checkpoint of epoch 3 \(there are: .*0"):
            panda.rollback(epoch=3)
        train_to(panda, 8)
        kept = {(c.epoch, c.abandoned): c.pins for c in panda.scribe.checkpoints}
        assert "branch" in kept[3, True]
    end(babysit_elsewhere(study, branch.number))

    assert_as_retold(study, 0)
    made = study.storage.get_trial("s", branch.number)
    assert (made.parent, made.parent_epoch, made.state, made.epoch) == ("s/0", 3, TrialState.COMPLETE, 8)


def test_only_the_last_the_best_and_the_pinned_checkpoints_are_kept(study: Study) -> None:
    """In the database as on the disk."""
    with study.panda(epochs=12, checkpoints=Policy(keep=2)) as panda:
        train_to(panda, 5)
        panda.checkpoint()
        for _ in panda:
            pass
        best = panda.best_epoch

    found = study.storage.sessions.checkpoints("s", 0)
    assert {c.epoch for c in found} - {best} == {0, 5, 11, 12} - {best}
    folder = checkpoint_folder(study.storage)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*.*")} == {c.path for c in found}


def damage(study: Study, checkpoint: StoredCheckpoint, how: str) -> None:
    """Do something to a checkpoint's file."""
    file = checkpoint_folder(study.storage) / checkpoint.path
    if how == "missing":
        file.unlink()
        return
    content = bytearray(file.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = content[:0]
    else:
        content[-20] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "empty", "bit flipped", "missing"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(study: Study, how: str) -> None:
    """Loudly; the epochs that were lost are trained again to the same bits, and its place is filled again."""
    with study.panda(epochs=8) as panda:
        train_to(panda, 3)
        panda.set(learning_rate=0.01)
        train_to(panda, 5)
        panda.checkpoint()
    newest = last_checkpoint(study, 0)
    damage(study, newest, how)
    said: list[str] = []

    with study.panda(0, on_event=said.append) as panda:
        assert panda.epoch == 4
        for _ in panda:
            pass

    assert any("WARNING" in line and "the one before" in line for line in said)
    assert_as_retold(study, 0)
    (again,) = (c for c in study.storage.sessions.checkpoints("s", 0) if c.epoch == 5)
    assert again.path != newest.path and "asked" in again.pins
    stored_state(study, again)


@pytest.mark.parametrize("is_rolled_back", [False, True])
def test_with_all_checkpoints_missing_a_run_is_trained_from_its_start(study: Study, is_rolled_back: bool) -> None:
    """To the same bits, through all interventions."""
    with study.panda(epochs=8) as panda:
        train_to(panda, 3)
        panda.set(learning_rate=0.01)
        train_within(panda, 4)
        panda.set(batch_size=16)
        train_to(panda, 5)
        if is_rolled_back:
            panda.rollback(epoch=4, l2=0.01)
    shutil.rmtree(checkpoint_folder(study.storage))
    said: list[str] = []

    with study.panda(0, on_event=said.append) as panda:
        for _ in panda:
            pass

    assert any("WARNING" in line and "trained again from its start" in line for line in said)
    assert study.storage.get_trial("s", 0).epoch == 8
    assert_as_retold(study, 0)


def test_a_branch_without_checkpoints_names_its_parent(study: Study) -> None:
    """It cannot be trained again by itself."""
    with study.panda() as panda:
        train_to(panda, 2)
        branch = panda.branch(epoch=1)
    for checkpoint in study.storage.sessions.checkpoints("s", branch.number):
        damage(study, checkpoint, "missing")

    with pytest.raises(CheckpointError, match="caviar panda start s/0"), study.panda(branch.number):
        pass


def test_a_child_starts_where_its_parent_ended_though_the_last_checkpoint_is_damaged(study: Study) -> None:
    """The parent's last epochs are trained again, and the parent stays as it is."""
    with study.panda(epochs=5) as panda:
        train_to(panda, 2)
        panda.set(learning_rate=0.01)
        for _ in panda:
            pass
    expected = stored_state(study, last_checkpoint(study, 0))
    damage(study, last_checkpoint(study, 0), "truncated")
    before = study.storage.get_trial("s", 0)

    with study.panda(0, params={"learning_rate": 0.5, "epochs": 7}) as child:
        assert_same_state(child.state, expected)
        assert (child.epoch, child.epochs, child.params["learning_rate"]) == (5, 7, 0.5)
        for _ in child:
            pass

    made = study.storage.get_trial("s", 1)
    assert (made.parent, made.parent_epoch, made.epoch, made.state) == ("s/0", 5, 7, TrialState.COMPLETE)
    assert "epochs" not in made.params
    assert study.storage.get_trial("s", 0) == before
    assert_as_retold(study, 1, expected)


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


def test_data_that_changed_is_refused(study: Study, sqlite_url: str, table: Path) -> None:
    """Before anything is trained on it."""
    with study.panda() as panda:
        train_to(panda, 1)
    table.write_text(table.read_text().replace("x\n", "y\n", 1))
    again = load_study("s", storage=sqlite_url)

    with pytest.raises(DataError, match="changed"):
        again.panda(0)
    again.storage.close()


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
