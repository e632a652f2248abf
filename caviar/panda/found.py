"""Founding a babysat trial: its row, its session, and the checkpoint that it starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caviar.errors import CheckpointError, ParamsError, RequestRejected
from caviar.panda.adjustable import adjustable_of, typed
from caviar.panda.course import settings_of
from caviar.panda.shelf import Shelf
from caviar.records import Intervention, Reason, StoredCheckpoint, StudySpec, Trial, TrialResult, TrialState
from caviar.space import SearchSpace
from caviar.storage import Storage
from caviar.storage.holder import new_holder
from caviar.training.checkpoint import Checkpoint
from caviar.training.hyperparameters import Hyperparameters
from caviar.training.state import State
from caviar.wording import command

_LEASE_S = 15.0


def found_trial(
    storage: Storage,
    spec: StudySpec,
    root: Path,
    trial: Trial,
    settings: Mapping[str, Any],
    state_of: Callable[[int], State],
) -> Trial:
    """Add a babysat trial that starts from a state; return it with its number.

    Args:
        storage: the trial database.
        spec: of the study.
        root: the checkpoint folder.
        trial: its number is ignored.
        settings: of its session; `start_epoch` is added.
        state_of: returns the state to start from, of the trial of a number; it is as large for every number.

    Raises:
        CheckpointError: there is no room for its first checkpoint; nothing is added.
    """
    # a trial that is added stays, and its number is known only then: whether there is room is tried before
    tried = state_of(0)
    Shelf(root, spec, 0, storage.identity).try_room(tried, trial.params)
    made = storage.sessions.create(trial, {**settings, "start_epoch": tried.epoch})
    keep_start(storage, Shelf(root, spec, made.number, storage.identity), made, state_of(made.number))
    return made


def keep_start(storage: Storage, shelf: Shelf, trial: Trial, state: State) -> StoredCheckpoint | None:
    """Write the checkpoint that a babysat trial starts from; the trial's session exists, and nobody holds its lease.

    Raises:
        CheckpointError: it cannot be written; a trial that cannot begin without it is FAIL.
    """
    owner = new_holder()
    storage.sessions.acquire(trial.study, trial.number, owner, _LEASE_S)
    try:
        start = shelf.save(state, trial.params, segment=0, sequence=0, pins=("start",))
        return storage.sessions.write(TrialResult(trial=trial), owner, checkpoint=start)
    except CheckpointError as error:
        if trial.parent is not None:  # without it there is nothing to go on from
            now = datetime.now(UTC)
            ended = replace(trial, state=TrialState.FAIL, reason=Reason.ERROR, error=str(error), finished_at=now)
            storage.sessions.write(TrialResult(trial=ended), owner)
            raise
        raise CheckpointError(
            f"{error}; once that is mended, begin: {command('panda', 'start', trial.name)}"
        ) from error
    finally:
        storage.sessions.release(trial.study, trial.number, owner)


def hand_over(
    storage: Storage, spec: StudySpec, root: Path, trial: Trial, state: State | None, answer: Intervention
) -> None:
    """Make a trial of a sweep a babysat one, with the state that it has reached.

    Args:
        storage: the trial database.
        spec: of the study.
        root: the checkpoint folder.
        trial: as it stands.
        state: None where it is untrained: whoever babysits it makes the first one.
        answer: to the request for it.
    """
    settings = {"epochs": spec.epochs, "start_epoch": state.epoch if state else 0}
    start = None
    if state is not None:
        shelf = Shelf(root, spec, trial.number, storage.identity)
        start = shelf.save(state, trial.params, segment=0, sequence=0, pins=("start",))
    storage.sessions.adopt(trial, settings, answer=answer, start=start)


def found_branch(
    storage: Storage,
    spec: StudySpec,
    root: Path,
    parent: Trial,
    start: StoredCheckpoint,
    loaded: Checkpoint,
    asked: Intervention,
    *,
    epochs: int | None,
) -> Trial:
    """Add a trial that goes on from a checkpoint of another, with the params of then and what was asked for.

    Asked twice by one request, as after a crash in between, it is added once.

    Raises:
        RequestRejected: a setting is not adjustable or not valid.
        CheckpointError: there is no room for its first checkpoint.
    """
    for session in storage.sessions.all(spec.name):
        if session.settings.get("asked_by") == asked.token:
            made = storage.get_trial(spec.name, session.number)
            if made.parent != parent.name:  # a token is one of its trial: another may have used the same
                continue
            if not storage.sessions.checkpoints(spec.name, made.number):
                keep_start(storage, Shelf(root, spec, made.number, storage.identity), made, loaded.state)
            return made
    wanted, adjustable = settings_of(asked.arguments), adjustable_of(spec, loaded.params)
    changes = adjustable.check(wanted, epochs_done=start.epoch) if wanted else {}
    if epochs is not None and epochs <= start.epoch:  # none are left: as many as for a trial of the study
        epochs = start.epoch + spec.epochs
    epochs = changes.pop("epochs", epochs)
    trial = Trial(
        study=spec.name,
        number=0,
        state=TrialState.WAITING,
        params={**loaded.params, **changes},
        parent=parent.name,
        parent_epoch=start.epoch,
        space_version=parent.space_version,
        epoch=start.epoch,
    )
    found = storage.sessions.get(spec.name, parent.number)
    settings = dict(found.settings) if found else {}
    settings |= {"epochs": epochs, "asked_by": asked.token}
    return found_trial(storage, spec, root, trial, settings, lambda number: loaded.state)


def fresh_params(spec: StudySpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of a fresh model: those given, else what the study's space fixes, else the defaults.

    A model of the user's own has no defaults: all params of the space are given or fixed.

    Raises:
        RequestRejected: a param is unknown or not valid, or is missing.
    """
    fixed = {name: value for name, value in spec.space.items() if not isinstance(value, Mapping)}
    params = {**fixed, **given}
    if spec.trainable is None:
        try:
            return Hyperparameters.from_params(params).to_params()
        except ParamsError as error:
            raise RequestRejected(str(error)) from error
    unknown = [name for name in params if name not in spec.space]
    if unknown:
        raise RequestRejected(f"unknown param {unknown[0]!r} (known: {', '.join(spec.space)})")
    missing = [name for name in spec.space if name not in params]
    if missing:
        raise RequestRejected(
            f"a fresh model of {spec.trainable.name} needs {', '.join(missing)}, too: give a value of each"
        )
    return {name: typed(name, params[name], domain) for name, domain in SearchSpace.from_dict(spec.space).items()}
