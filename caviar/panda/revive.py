"""Where a babysat model goes on: the newest checkpoint that can be read, and what was in force there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from caviar.errors import CheckpointError
from caviar.panda.course import STEERING, Course, fold, place_after
from caviar.panda.retrace import Passed, Retrace
from caviar.panda.shelf import Shelf
from caviar.panda.trainer import Trainer
from caviar.records import Intervention, Params, Reports, Session, Status, StoredCheckpoint, StudySpec, Trial
from caviar.storage import Storage
from caviar.training.state import Point, TrainState
from caviar.wording import command


@dataclass(frozen=True, kw_only=True, slots=True)
class Revived:
    """What a session needs to go on."""

    state: TrainState
    course: Course
    #: Metrics by epoch, up to the state's.
    history: dict[int, dict[str, float]]
    #: Interventions in force, and those that are to be applied again further on.
    applied: list[Intervention]
    ahead: list[Intervention]
    #: Rollbacks and interventions that lie behind the state.
    segment: int
    sequence: int
    #: All there are, oldest first.
    checkpoints: list[StoredCheckpoint]
    #: How far the run had come: beyond the state where later checkpoints cannot be read, or were never made.
    end: Point


def revive(
    storage: Storage,
    spec: StudySpec,
    session: Session,
    trial: Trial,
    shelf: Shelf,
    trainer: Trainer,
    on_trouble: Callable[[str], None],
) -> Revived:
    """Find where a trial goes on.

    A checkpoint that is torn, altered or missing is told to `on_trouble`, and the one before it is used; where none is
    left, the run is retraced from its start.

    Raises:
        CheckpointError: nothing is left to start from.
    """
    checkpoints = storage.sessions.checkpoints(spec.name, trial.number)
    reports = storage.reports(spec.name, trial.number)
    applied = applied_of(storage, spec, trial)
    last_back = next((i for i in reversed(applied) if i.kind == "rollback"), None)
    since = last_back.sequence or 0 if last_back else 0
    beginning = Course(session.start_params, session.settings.get("epochs"))

    for checkpoint in _candidates(checkpoints, last_back):
        try:
            state = shelf.load(checkpoint).state
        except CheckpointError as error:
            on_trouble(f"WARNING: {error}; going on from the one before it")
            continue
        sequence = max(checkpoint.sequence, since)
        history = history_of(reports, state.epoch)
        break
    else:
        start = start_state(storage, spec, session, trial, shelf, trainer)
        what = (
            f"WARNING: no checkpoint of {trial.name} can be read" if checkpoints else f"{trial.name} has no checkpoints"
        )
        on_trouble(f"{what}; it is trained again from its start")
        steps = [i for i in applied if i.kind in STEERING]
        until = place_after(steps[-1]) if steps else start.point
        again = Retrace(trainer, Passed(start, beginning), steps, until)
        state = again.run().state
        history = history_of(reports, start.epoch) | again.history
        sequence = (steps[-1].sequence or 0) if steps else 0

    behind = [i for i in applied if (i.sequence or 0) <= sequence]
    course = fold(beginning, behind)
    steered_at = next((place_after(i)[0] for i in reversed(behind) if i.kind in STEERING), None)
    return Revived(
        state=state,
        course=course if state.batch and steered_at == state.epoch else course.at_epoch_start(),
        history=history,
        applied=behind,
        ahead=[i for i in applied if (i.sequence or 0) > sequence],
        segment=sum(i.kind == "rollback" for i in behind),
        sequence=sequence,
        checkpoints=checkpoints,
        end=max(
            [state.point, (reports.first_epoch + len(reports) - 1, 0)]
            + [(c.epoch, c.batch) for c in checkpoints if not c.abandoned]
        ),
    )


def start_state(
    storage: Storage, spec: StudySpec, session: Session, trial: Trial, shelf: Shelf, trainer: Trainer
) -> TrainState:
    """Return the state that a babysat trial began with: from its checkpoint, or trained again to the same bits.

    Raises:
        CheckpointError: its checkpoint cannot be read, and it cannot be trained again either.
    """
    starts = [c for c in storage.sessions.checkpoints(spec.name, trial.number) if "start" in c.pins]
    trouble = f"{trial.name} has no checkpoint to start from"
    for checkpoint in starts:
        try:
            return shelf.load(checkpoint).state
        except CheckpointError as error:
            trouble = str(error)
    if trial.parent is not None:
        found = _end_of_parent(storage, spec, session, trial, shelf, trainer)
        if found is None:
            raise CheckpointError(f"{trouble}; start anew from its parent: {command('panda', 'start', trial.parent)}")
        return found
    # a trial of a sweep, or a fresh one, is a function of seed and number
    return retrained(trainer, session.start_params, session.settings.get("start_epoch", 0))


def _end_of_parent(
    storage: Storage, spec: StudySpec, session: Session, trial: Trial, shelf: Shelf, trainer: Trainer
) -> TrainState | None:
    """Return the state in which the parent of a trial ended; None where the trial may not have begun with that."""
    study, _, number = (trial.parent or "").rpartition("/")
    if study != spec.name or "asked_by" in session.settings:  # a branch may begin anywhere
        return None
    parents = storage.trials(study, where=f"number = {int(number)}")
    if not parents or not parents[0].state.is_finished or parents[0].epoch != trial.parent_epoch:
        return None
    parent, beside = parents[0], trainer.of(parents[0].number)
    babysat = storage.sessions.get(study, parent.number)
    if babysat is not None:
        place = shelf.of(parent.number)
        return end_state(revive(storage, spec, babysat, parent, place, beside, lambda line: None), parent, beside)
    return None if parent.parent else retrained(beside, parent.params, parent.epoch)


def retrained(trainer: Trainer, params: Params, epoch: int) -> TrainState:
    """Return the state of a trial of a sweep after some epochs, trained again to the same bits.

    Raises:
        CheckpointError: it diverges on the way.
    """
    advance = trainer.advance(None, params, epoch)
    if advance.state is None:
        raise CheckpointError(f"training it again diverged before epoch {epoch}: the machine or caviar has changed")
    return advance.state


def end_state(revived: Revived, trial: Trial, trainer: Trainer) -> TrainState:
    """Return the state in which a finished trial ended, trained again where its last checkpoint could not be read.

    Raises:
        CheckpointError: it does not go as it went.
    """
    current = [(c.epoch, c.batch) for c in revived.checkpoints if not c.abandoned]
    stops = [(i.epoch or 0, i.batch or 0) for i in revived.ahead if i.kind == "stop"]
    until = max([*current, *stops, (trial.epoch, 0)])
    if revived.state.point >= until:
        return revived.state
    return Retrace(trainer, Passed(revived.state, revived.course), revived.ahead, until).run().state


def passed_state(
    storage: Storage,
    spec: StudySpec,
    session: Session,
    trial: Trial,
    shelf: Shelf,
    trainer: Trainer,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> Passed:
    """Return how a babysat trial stood at the end of an epoch, `trial.epoch`, on the timeline in force.

    It comes from a checkpoint, or the run is retraced from its start.

    Raises:
        CheckpointError: neither can be had.
        KeyboardInterrupt: interrupted on the way.
    """
    point, epochs = (trial.epoch, 0), session.settings.get("epochs")
    for checkpoint in reversed(storage.sessions.checkpoints(spec.name, trial.number)):
        if not checkpoint.abandoned and (checkpoint.epoch, checkpoint.batch) == point:
            with suppress(CheckpointError):
                loaded = shelf.load(checkpoint)
                return Passed(loaded.state, Course(loaded.params, epochs))
    beginning = Course(session.start_params, epochs)
    if trial.parent is None and trial.epoch < session.settings.get("start_epoch", 0):
        return Passed(retrained(trainer, session.start_params, trial.epoch), beginning)
    found: Passed | None = None

    def keep(now: Passed, intervention: Intervention | None) -> None:
        nonlocal found
        if is_interrupted():
            raise KeyboardInterrupt
        if now.state.point == point:  # the last time that it is passed is that of the timeline in force
            found = now

    start = start_state(storage, spec, session, trial, shelf, trainer)
    keep(Passed(start, beginning), None)
    Retrace(trainer, Passed(start, beginning), applied_of(storage, spec, trial), point, keep).run()
    if found is None:
        raise CheckpointError(f"{trial.name} never passed the end of epoch {trial.epoch}, so its state cannot be had")
    return found


def applied_of(storage: Storage, spec: StudySpec, trial: Trial) -> list[Intervention]:
    """Return the interventions that were applied to a trial, in their order."""
    found = storage.sessions.interventions(spec.name, trial.number)
    return [i for i in found if i.status is Status.APPLIED and i.sequence is not None]


def _candidates(checkpoints: Sequence[StoredCheckpoint], last_back: Intervention | None) -> list[StoredCheckpoint]:
    """Return the checkpoints to go on from, the newest first."""
    current = [c for c in checkpoints if not c.abandoned]
    newest_first = sorted(current, key=lambda c: (c.epoch, c.batch, c.sequence), reverse=True)
    if last_back is None:
        return newest_first
    target = place_after(last_back)
    since = last_back.sequence or 0
    after = [c for c in newest_first if c.sequence >= since]
    return after + [c for c in newest_first if c.sequence < since and (c.epoch, c.batch) == target]


def history_of(reports: Reports, epoch: int) -> dict[int, dict[str, float]]:
    """Return the metrics by epoch of a trial's reports, up to an epoch."""
    rows = enumerate(reports.values.tolist(), reports.first_epoch)
    return {at: dict(zip(reports.metrics, row, strict=True)) for at, row in rows if at <= epoch}
