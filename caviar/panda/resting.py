"""Branching from a babysat trial that nobody trains now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from caviar.errors import CheckpointError, PandaNotRunning, RequestRejected
from caviar.panda.course import Course, fold, settings_of, with_settings
from caviar.panda.found import found_branch
from caviar.panda.revive import applied_of, history_of
from caviar.panda.shelf import Shelf, best_epoch, pinned
from caviar.panda.verbs import choose_checkpoints, describe_branch, note_on_best
from caviar.records import Intervention, Params, Session, Status, StudySpec, Trial
from caviar.storage import Storage
from caviar.storage.holder import new_holder
from caviar.training.state import State
from caviar.wording import command

_LEASE_S = 15.0


def branch_at_rest(
    storage: Storage,
    spec: StudySpec,
    root: Path,
    trial: Trial,
    asked: Intervention,
    try_params: Callable[[State, Params], None] = lambda state, params: None,
) -> Intervention:
    """Do what a running model does when it is asked for a branch; return the request as it was answered.

    Asked twice with one token, it is done once.

    Args:
        storage: the trial database.
        spec: of the study.
        root: the checkpoint folder.
        trial: to branch from.
        asked: the request.
        try_params: raises RequestRejected where a model of the user's own does not go on from a state with such params.

    Raises:
        PandaNotRunning: the trial was never babysat, so that it has no checkpoints.
        PandaBusy: somebody trains it, and can be asked.
    """
    session = storage.sessions.get(spec.name, trial.number)
    if session is None:
        raise PandaNotRunning(
            f"{trial.name} is not babysat, it has no checkpoints; babysit it first: "
            f"{command('panda', 'start', trial.name)}"
        )
    owner = new_holder()
    storage.sessions.acquire(spec.name, trial.number, owner, _LEASE_S)  # nobody removes a checkpoint meanwhile
    try:
        found = storage.sessions.ask(asked)
        if found.status is not Status.ASKED:
            return found
        return _branch(storage, spec, root, trial, session, found, owner, try_params)
    finally:
        storage.sessions.release(spec.name, trial.number, owner)


def _branch(
    storage: Storage,
    spec: StudySpec,
    root: Path,
    trial: Trial,
    session: Session,
    asked: Intervention,
    owner: str,
    try_params: Callable[[State, Params], None],
) -> Intervention:
    applied = applied_of(storage, spec, trial)
    stored = storage.sessions.checkpoints(spec.name, trial.number)
    current = [c for c in stored if not c.abandoned]
    left_behind = [c for c in stored if c.abandoned]
    answered = replace(asked, applied_at=datetime.now(UTC))
    shelf = Shelf(root, spec, trial.number, storage.identity)
    history = history_of(storage.reports(spec.name, trial.number), trial.epoch)
    epochs = fold(Course(session.start_params, session.settings.get("epochs")), applied).epochs
    warning, best = "", best_epoch(history, spec)
    try:
        for target in choose_checkpoints(current, asked.arguments, trial.epoch, best, left_behind):
            try:
                loaded = shelf.load(target)
            except CheckpointError as error:
                warning += f"; WARNING: {error}"
                continue
            params = with_settings(loaded.params, settings_of(asked.arguments))
            if params != dict(loaded.params):
                try_params(loaded.state, params)
            made = found_branch(storage, spec, root, trial, target, loaded, asked, epochs=epochs)
            break
        else:
            raise RequestRejected(f"no checkpoint can be read{warning}")
    except (RequestRejected, CheckpointError) as error:
        answered = replace(answered, status=Status.REJECTED, message=str(error))
        storage.sessions.answer(answered, owner)
        return answered
    last = current[-1]
    answered = replace(
        answered,
        status=Status.APPLIED,
        message=describe_branch(made, target, note_on_best(asked.arguments, best, target, current) + warning),
        sequence=max((i.sequence or 0 for i in applied), default=0) + 1,
        epoch=last.epoch,
        batch=last.batch,
        step=last.step,
        before={},
        after={"number": made.number, "epoch": target.epoch},
        metrics_before=history.get(last.epoch),
    )
    storage.sessions.answer(answered, owner, pinned=[pinned(target, "branch")])
    return answered
