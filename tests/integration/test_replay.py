"""A run is what its record says: trained again it is the same, and without an intervention it is what that would be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import caviar
from caviar.bootstrap import checkpoint_folder
from caviar.errors import CheckpointError, TrialNotFound
from caviar.panda.resting import branch_at_rest
from caviar.panda.session import PandaSession
from caviar.records import Intervention, Trial
from caviar.storage import Storage, open_storage
from caviar.storage.exchange import export_study, import_study
from caviar.study import Study
from caviar.training.checkpoint import load_checkpoint, save_checkpoint
from caviar.training.state import TrainState

OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam")


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone: what these tests ask of a database, the contract tests hold both to."""
    return sqlite_url


@pytest.fixture
def study(storage: Storage) -> Study:
    """A study of nothing yet."""
    return caviar.create_study("s", data="iris", seed=3, epochs=10, storage=storage)


def babysit(
    study: Study,
    steer: Callable[[PandaSession, int], None] = lambda panda, n: None,
    *,
    epochs: int = 16,
    **params: object,
) -> Trial:
    """Babysit a fresh model to its end; `steer` is called with each epoch's number in the order of training."""
    with study.panda(params={"batch_size": 16, "layers": 1, **params}, epochs=epochs) as panda:
        for n, _ in enumerate(panda, 1):
            steer(panda, n)
        return panda.trial


def eventful(panda: PandaSession, n: int) -> None:
    """Do one of everything that leaves a trace in the weights."""
    if n == 3:
        panda.set(learning_rate=0.05, l2=0.01)
    elif n == 6:
        panda.set(batch_size=8)
    elif n == 8:
        panda.rollback(epochs=3, learning_rate=0.02)
    elif n == 9:
        panda.rollback(epoch=2)
    elif n == 12:
        panda.set(learning_rate_decay=0.1, momentum=0.5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_trained_again_is_identical(study: Study, optimizer: str) -> None:
    """With settings changed and two rollbacks, every checkpoint agrees bit for bit."""
    trial = babysit(study, eventful, optimizer=optimizer)

    found = study.replay(trial)

    assert found.difference is None
    assert (found.epoch, found.n_interventions, found.n_unreadable) == (16, 5, 0)
    assert found.n_checkpoints > 12


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_run_that_was_imported_is_gone_through_again(study: Study, tmp_path: Path, suffix: str) -> None:
    """What was done to it is in the file: without any checkpoint it ends, and goes on, with the same bits."""
    trial = babysit(study, eventful)
    other = open_storage(f"sqlite:///{tmp_path / 'other.db'}")
    export_study(study.storage, "s", tmp_path / f"s{suffix}")
    import_study(other, tmp_path / f"s{suffix}", name="copy")
    copy = caviar.load_study("copy", storage=other)

    with copy.panda(trial.number, more_epochs=2) as there:
        again = [report.metrics for report in there]
    with study.panda(trial.number, more_epochs=2) as here:
        went = [report.metrics for report in here]

    assert again == went
    assert here.trial.parent == trial.name and there.trial.parent == f"copy/{trial.number}"


def test_children_that_were_imported_go_on(study: Study, tmp_path: Path) -> None:
    """From where a trial of a sweep, or a babysat one, ended, which is trained again; a branch says that it cannot."""
    study.sweep(2, n_workers=0)
    with study.panda(1, more_epochs=3) as panda:
        list(panda)
        panda.branch(best=True)
    with study.panda(panda.trial, params={"learning_rate": 0.02}, more_epochs=3) as grandchild:
        list(grandchild)
    export_study(study.storage, "s", tmp_path / "s.jsonl")
    other = open_storage(f"sqlite:///{tmp_path / 'other.db'}")
    import_study(other, tmp_path / "s.jsonl")
    copy = caviar.load_study("s", storage=other)

    for number in (panda.trial.number, grandchild.trial.number):
        assert copy.model(number).parameters.tobytes() == study.model(number).parameters.tobytes()
        with pytest.raises(CheckpointError, match=r"no checkpoint to compare with: its checkpoints are not here"):
            copy.replay(number)
    (branch,) = (t.number for t in copy.trials() if t.parent == panda.trial.name and t != grandchild.trial)
    with pytest.raises(CheckpointError, match=rf"start anew from its parent: caviar panda start {panda.trial.name}"):
        copy.panda(branch)


def test_a_run_whose_weights_were_altered_is_not(study: Study, tmp_path: Path) -> None:
    """A single bit in one checkpoint, under a right checksum, is found and its place is named."""
    trial = babysit(study, eventful)
    (file,) = tmp_path.glob("**/e000014-s2-*.safetensors")
    checkpoint = load_checkpoint(file)
    assert isinstance(checkpoint.state, TrainState)
    parameters = checkpoint.state.parameters.copy()
    parameters.view(np.uint32)[5] ^= 1
    save_checkpoint(file, replace(checkpoint.state, parameters=parameters), checkpoint.params)

    found = study.replay(trial)

    assert found.difference is not None
    assert "parameters differ at epoch 14" in found.difference


def test_a_run_whose_record_was_altered_is_not(study: Study, storage: Storage) -> None:
    """Another value of one intervention makes other weights from there on."""
    trial = babysit(study, eventful)
    first = storage.sessions.interventions("s", trial.number)[0]
    storage.sessions.answer(replace(first, arguments={"learning_rate": 0.0500001, "l2": 0.01}), None)

    found = study.replay(trial)

    assert found.difference is not None
    assert "epoch 5" in found.difference


def test_a_trial_that_was_never_babysat_cannot_be_replayed(study: Study) -> None:
    """The message says how to begin."""
    study.sweep(1, n_workers=0)

    with pytest.raises(TrialNotFound, match="caviar panda start s/0"):
        study.replay(0)


def test_a_run_without_any_checkpoint_cannot_be_replayed(study: Study, tmp_path: Path) -> None:
    """There is nothing to compare with, which is not the same as identical."""
    trial = babysit(study)
    for file in tmp_path.glob("**/*.safetensors"):
        file.unlink()

    with pytest.raises(CheckpointError, match="nothing to compare with"):
        study.replay(trial)


def metrics_of(study: Study, trial: Trial, epoch: int) -> dict[str, float]:
    reports = study.reports(trial.number)
    return dict(zip(reports.metrics, reports.values[epoch - reports.first_epoch].tolist(), strict=True))


def go_on(study: Study, trial: Trial, epochs: int) -> Trial:
    """Babysit a branch, which is left alone, to an epoch."""
    with study.panda(trial, epochs=epochs) as panda:
        for _ in panda:
            pass
        return panda.trial


def test_the_control_of_a_setting_is_the_run_without_it(study: Study) -> None:
    """A branch from just before, left alone, ends in the same bits as the control."""
    branches = []

    def steer(panda: PandaSession, n: int) -> None:
        if n == 9:
            branches.append(panda.branch(epochs=0))
            panda.set(learning_rate=0.2)

    nudged = babysit(study, steer)
    alone = go_on(study, branches[0], 16)

    (found,) = study.compare(nudged)

    assert found.control == metrics_of(study, alone, 16)
    assert found.actual == metrics_of(study, nudged, 16)
    assert (found.epochs, found.intervention.kind) == (7, "set")


def test_the_control_of_a_rollback_goes_on_for_as_many_epochs(study: Study) -> None:
    """Back from 12 to 8 and on to 16 are eight epochs: without it, the run would have come to 20."""
    branches = []

    def steer(panda: PandaSession, n: int) -> None:
        if n == 12:
            branches.append(panda.branch(epochs=0))
            panda.rollback(epoch=8, learning_rate=0.001)

    went_back = babysit(study, steer, learning_rate=0.1)
    alone = go_on(study, branches[0], 20)

    (found,) = study.compare(went_back)

    assert found.control == metrics_of(study, alone, 20)
    assert found.epochs == 8


def train_within(panda: PandaSession, n_batches: int) -> None:
    """Train some mini-batches of the epoch under way, as the session itself does between two looks at its requests."""
    advanced = panda._trainer.advance(panda.state, panda.course.params, (panda.epoch, panda.state.batch + n_batches))
    assert advanced.state is not None
    panda.state = advanced.state


def test_two_rollbacks_to_one_epoch_are_compared(study: Study) -> None:
    """The second throws away what the first has led to, whatever that was, but for its settings."""
    branches = []

    def steer(panda: PandaSession, n: int) -> None:
        if n == 8:
            train_within(panda, 2)
            panda.rollback(epoch=5)
        elif n == 10:  # epoch 7
            branches.append(panda.branch(epochs=0))
            panda.rollback(epoch=5, learning_rate=0.003)

    went_back = babysit(study, steer, epochs=12)
    alone = go_on(study, branches[0], 14)

    first, second = study.compare(went_back)

    assert first.control == first.actual == metrics_of(study, went_back, 12)
    assert first.has_helped(study.spec) is None
    assert second.control == metrics_of(study, alone, 14)
    assert [found.trouble for found in (first, second)] == [None, None]


def test_a_rollback_on_the_way_from_another_moves_with_it(study: Study) -> None:
    """Without the first, the second goes back as many epochs from as many epochs later."""
    branches = []

    def steer(panda: PandaSession, n: int) -> None:
        if n == 8:
            branches.append(panda.branch(epochs=0))
            train_within(panda, 2)
            panda.rollback(epoch=5)
        elif n == 11:  # epoch 8
            panda.rollback(epoch=7, learning_rate=0.003)

    went_back = babysit(study, steer, epochs=10)
    with study.panda(branches[0], epochs=13) as panda:
        for report in panda:
            if report.epoch == 11 and all(i.kind != "rollback" for i in panda.interventions):
                panda.rollback(epoch=10, learning_rate=0.003)

    first, _ = study.compare(went_back)

    assert first.control == metrics_of(study, panda.trial, 13)


def test_a_control_that_cannot_be_made_is_told_beside_the_others(study: Study) -> None:
    """Without the smaller batches the epoch has no such mini-batch to go back to."""

    def steer(panda: PandaSession, n: int) -> None:
        if n == 2:
            panda.set(batch_size=4)
        elif n == 3:
            train_within(panda, 20)
            panda.checkpoint()
            # a policy that keeps few leaves no other checkpoint of the epoch
            panda.scribe.checkpoints[:] = [c for c in panda.scribe.checkpoints if (c.epoch, c.batch) != (3, 0)]
            panda.rollback(epoch=3, learning_rate=0.003)

    trial = babysit(study, steer, epochs=5, batch_size=64)

    first, second = study.compare(trial)

    assert first.trouble is not None and "never passed epoch 3" in first.trouble
    assert (first.control, first.has_helped(study.spec)) == (None, None)
    assert second.control is not None


def test_a_rollback_just_before_the_end_has_a_control(study: Study) -> None:
    """It is the run as it was before, which is not trained further."""

    def steer(panda: PandaSession, n: int) -> None:
        if n == 6:
            panda.rollback(epoch=4)
            panda.stop()

    trial = babysit(study, steer)

    (found,) = study.compare(trial)

    assert found.control is not None
    assert (found.epochs, found.trouble) == (0, None)


def test_a_control_that_diverges_says_that_the_intervention_helped(study: Study) -> None:
    """A rollback away from a learning rate that would have blown up."""

    def steer(panda: PandaSession, n: int) -> None:
        if n == 3:
            panda.set(learning_rate=1e30, l2=1e9)
            panda.rollback(epoch=2, learning_rate=0.05, l2=0.0)

    trial = babysit(study, steer, epochs=5)

    found = study.compare(trial)

    assert [c.control is None for c in found] == [False, True]
    assert found[1].has_helped(study.spec) is True


def test_a_checkpoint_that_a_rollback_left_behind_can_be_branched_from(study: Study) -> None:
    """The best epoch so far is kept when a rollback goes behind it, and the answer says how to reach it."""
    found: list[tuple[int | None, str, int | None]] = []

    def steer(panda: PandaSession, n: int) -> None:
        if n == 9:
            best = panda.best_epoch
            said = panda.rollback(epoch=0).message
            found.append((best, said or "", panda.branch(epoch=best).parent_epoch))

    babysit(study, steer, epochs=12)

    ((best, said, branched_from),) = found
    assert f"epoch {best}, the best so far, is left behind" in said
    assert branched_from == best


def test_two_trials_are_branched_by_one_token(study: Study, storage: Storage) -> None:
    """A token names a request to its own trial: that of another is another request."""
    parents = [babysit(study, epochs=2) for _ in range(2)]
    asked = [Intervention(trial=p.name, token="b", kind="branch", arguments={"to": "epoch", "at": 1}) for p in parents]

    for parent, one in zip(parents, asked, strict=True):
        branch_at_rest(storage, study.spec, checkpoint_folder(storage), parent, one)

    assert [storage.get_trial("s", number).parent for number in (2, 3)] == [p.name for p in parents]


def test_a_checkpoint_within_an_epoch_is_compared(study: Study, tmp_path: Path) -> None:
    """Also where nothing else happened there, and one that was kept right after a rollback."""

    def steer(panda: PandaSession, n: int) -> None:
        if n == 3:
            train_within(panda, 2)
            panda.checkpoint()
        elif n == 6:
            panda.rollback(epoch=5)
            panda.checkpoint()

    trial = babysit(study, steer, epochs=8)
    stored = study.storage.sessions.checkpoints("s", trial.number)

    found = study.replay(trial)

    assert (found.difference, found.n_unreadable) == (None, 0)
    assert found.n_checkpoints == len(stored)


def test_a_trial_that_trained_again_is_another_model_is_not_gone_on_from(study: Study, storage: Storage) -> None:
    """A steered trial without its states, as after an import, is refused instead of mistaken for an unsteered one."""

    def slow_down(panda: PandaSession, n: int) -> None:
        if n == 1:
            panda.set(learning_rate=1e-4)

    steered = babysit(study, slow_down)
    copy = replace(steered, number=7)
    storage.add_trials("s", [copy])

    with pytest.raises(CheckpointError, match="its states are not here"):
        study.panda(7)


def test_what_a_run_that_diverged_owes_to_an_intervention(study: Study) -> None:
    """The setting that broke it has not helped."""

    def break_it(panda: PandaSession, n: int) -> None:
        if n == 3:
            panda.set(learning_rate=1e30, l2=1e9)

    trial = babysit(study, break_it)

    (found,) = study.compare(trial)

    assert trial.reason == "diverged"
    assert (found.has_diverged, found.has_helped(study.spec)) == (True, False)
