"""A babysat model whose checkpoints are damaged is trained again from what is left, on the data that it had."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from caviar.bootstrap import checkpoint_folder
from caviar.errors import CheckpointError, DataError
from caviar.opening import load_study
from caviar.panda.shelf import Policy
from caviar.records import StoredCheckpoint, TrialState
from caviar.study import Study
from caviar.testing.panda import (
    assert_as_retold,
    assert_same_state,
    babysit_elsewhere,
    last_checkpoint,
    stored_state,
    train_to,
    train_within,
    wait,
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


@pytest.mark.parametrize("verb", ["set", "stop"])
def test_what_cannot_be_read_and_is_steered_behind_is_left_behind(study: Study, verb: str) -> None:
    """Its checkpoints may come back, as with the disk that they are on; then they are those of another timeline."""
    with study.panda(epochs=20) as panda:
        train_to(panda, 6)
        train_within(panda, 3)
    folder = checkpoint_folder(study.storage)
    away = folder.with_name("away")
    folder.rename(away)
    with study.panda(0) as panda:
        train_to(panda, 2)
        if verb == "set":
            panda.set(learning_rate=0.3)
            panda.set(epochs=4)
        else:
            panda.stop()
        for _ in panda:
            pass
    shutil.copytree(away, folder, dirs_exist_ok=True)

    trial = study.storage.get_trial("s", 0)
    epochs = 4 if verb == "set" else 2
    assert (trial.state, trial.epoch, len(study.reports(0))) == (TrialState.COMPLETE, epochs, epochs)
    assert_as_retold(study, 0)
    gone_back, *_ = study.storage.sessions.interventions("s", 0)
    assert (gone_back.kind, gone_back.author, gone_back.epoch, gone_back.batch) == ("rollback", "caviar", 6, 3)
    assert study.replay(0).is_identical
    assert study.model(0).metrics["val_loss"] == trial.metrics["val_loss"]
    with study.panda(0, more_epochs=2) as child:
        assert [report.epoch for report in child] == [epochs + 1, epochs + 2]


def test_without_steering_an_unreadable_end_is_trained_again(study: Study) -> None:
    """To the same bits: nothing is left behind, and the checkpoints are good when they come back."""
    with study.panda(epochs=8) as panda:
        train_to(panda, 5)
    folder = checkpoint_folder(study.storage)
    folder.rename(folder.with_name("away"))
    with study.panda(0) as panda:
        train_to(panda, 6)
        panda.set(learning_rate=0.3)
        for _ in panda:
            pass

    assert [i.kind for i in study.storage.sessions.interventions("s", 0)] == ["set"]
    assert_as_retold(study, 0)
    assert study.replay(0).is_identical


def test_reports_of_epochs_that_no_checkpoint_was_made_of_go_when_they_are_steered_behind(study: Study) -> None:
    """With few checkpoints a crash costs epochs; a new course through them has reports of its own."""
    process = babysit_elsewhere(study, start_fresh(study))
    wait(lambda: len(study.reports(0)) > 20, process)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()

    with study.panda(0) as panda:
        assert panda.epoch == 0
        panda.set(learning_rate=1e-5)
        panda.set(epochs=5)
        for _ in panda:
            pass
    assert len(study.reports(0)) == 5
    assert_as_retold(study, 0)
    assert study.replay(0).is_identical


def start_fresh(study: Study) -> int:
    """Make a babysat trial that is not trained yet; return its number."""
    with study.panda(until_stopped=True, checkpoints=Policy(every=10**6)) as panda:
        return panda.trial.number


@pytest.mark.parametrize("verb", ["set", "rollback", "stop"])
def test_what_lies_ahead_is_met_before_anything_else_is_done(study: Study, verb: str) -> None:
    """From Python, too: the record has one order, and the reports on the way are not lost."""
    with study.panda(epochs=10) as panda:
        train_to(panda, 4)
        panda.set(learning_rate=0.05)
        train_to(panda, 7)
    for checkpoint in study.storage.sessions.checkpoints("s", 0):
        if checkpoint.epoch > 2:
            damage(study, checkpoint, "missing")

    with study.panda(0) as panda:
        assert panda.epoch == 2
        if verb == "set":
            panda.set(learning_rate=0.3)
        elif verb == "rollback":
            panda.rollback(epochs=1)
        else:
            panda.stop()
        assert panda.epoch == (3 if verb == "rollback" else 4)
        epochs = [report.epoch for report in panda]
    told = [(i.sequence, i.kind) for i in study.storage.sessions.interventions("s", 0)]
    expected = {
        "set": [(2, "rollback"), (3, "set")],
        "rollback": [(2, "rollback")],
        "stop": [(2, "rollback"), (3, "stop")],
    }
    assert told == [(1, "set"), *expected[verb]]
    assert epochs == {"set": [3, 4, 5, 6, 7, 8, 9, 10], "rollback": [3, 4, 4, 5, 6, 7, 8, 9, 10], "stop": [3, 4]}[verb]
    assert_as_retold(study, 0)
    assert study.replay(0).is_identical
