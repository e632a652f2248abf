"""A babysat model whose checkpoints are damaged is trained again from what is left, on the data that it had."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from caviar.bootstrap import checkpoint_folder
from caviar.errors import CheckpointError, DataError
from caviar.opening import load_study
from caviar.records import StoredCheckpoint, TrialState
from caviar.study import Study
from caviar.testing.panda import (
    assert_as_retold,
    assert_same_state,
    last_checkpoint,
    stored_state,
    train_to,
    train_within,
)


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


def test_data_that_changed_is_refused(study: Study, sqlite_url: str, table: Path) -> None:
    """Before anything is trained on it."""
    with study.panda() as panda:
        train_to(panda, 1)
    table.write_text(table.read_text().replace("x\n", "y\n", 1))
    again = load_study("s", storage=sqlite_url)

    with pytest.raises(DataError, match="changed"):
        again.panda(0)
    again.storage.close()
