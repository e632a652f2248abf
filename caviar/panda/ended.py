"""What a trial ended with, or had on the way: its record, the params in force and the state of its model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from caviar.checks import whole
from caviar.errors import SettingsError
from caviar.panda.revive import history_of
from caviar.panda.shelf import best_epoch
from caviar.panda.start import Nursery
from caviar.records import Params, Trial, TrialState
from caviar.training.state import OwnState, State
from caviar.training.task import Assignment
from caviar.training.trainable import model_in


def state_after(nursery: Nursery, trial: Trial, epoch: int | str | None) -> tuple[Trial, Params, State]:
    """Return a trial as it was after an epoch, the params that were in force, and the state of its model.

    Args:
        nursery: of its study.
        trial: that is COMPLETE.
        epoch: `best` is where the study's metric was best, None the last.

    Raises:
        SettingsError: it is not COMPLETE, or has no such epoch.
        CheckpointError: the state cannot be had.
        KeyboardInterrupt: interrupted.
    """
    if trial.state is not TrialState.COMPLETE:
        raise SettingsError(f"only a COMPLETE trial has a model to use, found {trial.name} {trial.state}")
    then = trial if epoch is None else _as_of(nursery, trial, epoch)
    state, params = nursery.last_state(trial) if then is trial else None, then.params
    if state is None or state.batch:  # stopped within an epoch, its value is that of the last whole one
        state, params = nursery.earlier_state(then)
    if nursery.is_interrupted():  # while what cannot be interrupted was done
        raise KeyboardInterrupt
    return then, params, state


def own_model_in(nursery: Nursery, trial: Trial, params: Params, state: State) -> Any:
    """Return an object of the user's class in a state of a trial.

    Raises:
        TrainableError: the class cannot be found.
        BaseException: whatever it raises.
    """
    spec = nursery.spec
    assert spec.trainable is not None and isinstance(state, OwnState)
    given = Assignment(
        spec=spec.trainable,
        study=spec.name,
        metric=spec.metric,
        epochs=spec.epochs,
        number=trial.number,
        key=state.key,
        params=params,
        data=nursery.data,
    )
    return model_in(given, state)


def _as_of(nursery: Nursery, trial: Trial, epoch: int | str) -> Trial:
    """Return a trial as it was at the end of one of its epochs."""
    history = history_of(nursery.storage.reports(trial.study, trial.number), trial.epoch)
    if epoch == "best":
        wanted = best_epoch(history, nursery.spec)
    else:
        wanted = None if isinstance(epoch, str) else whole("epoch", epoch)
    if wanted is None or wanted not in history:
        has = f"has {min(history)} to {max(history)}" if history else "has no reports"
        raise SettingsError(f"expected an epoch of {trial.name}, or 'best', found {epoch!r}: it {has}")
    if wanted == trial.epoch:
        return trial
    return replace(trial, epoch=wanted, metrics=history[wanted])
