"""A babysat model goes on, in whatever process, to the bits that it would have come to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caviar.bootstrap import checkpoint_folder
from caviar.errors import PandaBusy, RequestRejected
from caviar.nn.kernel import choose_kernel
from caviar.panda.asking import trains_again_to
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
from caviar.training.advance import advance

OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam")


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
