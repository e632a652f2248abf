"""Where a babysat model goes on: the newest checkpoint that can be read, and what was in force there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from caviar.errors import CheckpointError
from caviar.panda.course import STEERING, Course, fold, place_after
from caviar.panda.retrace import Passed, Retrace
from caviar.panda.shelf import Shelf
from caviar.panda.trainer import Trainer
from caviar.records import Intervention, Params, Reports, Session, Status, StoredCheckpoint, StudySpec, Trial
from caviar.storage import Storage
from caviar.training.state import Point, State
from caviar.wording import command


@dataclass(frozen=True, kw_only=True, slots=True)
class Cub:
    """A babysat trial, and all from which its states are had."""

    storage: Storage
    spec: StudySpec
    session: Session
    trial: Trial
    shelf: Shelf
    trainer: Trainer

    @property
    def beginning(self) -> Course:
        """What was in force when it was first babysat."""
        return Course(self.session.start_params, self.session.settings.get("epochs"))

    def checkpoints(self) -> list[StoredCheckpoint]:
        """Return what the database knows of its checkpoints, oldest first."""
        return self.storage.sessions.checkpoints(self.spec.name, self.trial.number)

    def applied(self) -> list[Intervention]:
        """Return the interventions that were applied to it, in their order."""
        return applied_of(self.storage, self.spec, self.trial)


@dataclass(frozen=True, kw_only=True, slots=True)
class Revived:
    """What a session needs to go on."""

    state: State
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


def revive(cub: Cub, on_trouble: Callable[[str], None]) -> Revived:
    """Find where a trial goes on.

    A checkpoint that is torn, altered or missing is told to `on_trouble`, and the one before it is used; where none is
    left, the run is retraced from its start.

    Raises:
        CheckpointError: nothing is left to start from.
    """
    checkpoints, applied, beginning = cub.checkpoints(), cub.applied(), cub.beginning
    reports = cub.storage.reports(cub.spec.name, cub.trial.number)
    last_back = next((i for i in reversed(applied) if i.kind == "rollback"), None)
    since = last_back.sequence or 0 if last_back else 0

    for checkpoint in _candidates(checkpoints, last_back):
        try:
            state = cub.shelf.load(checkpoint).state
        except CheckpointError as error:
            on_trouble(f"WARNING: {error}; going on from the one before it")
            continue
        sequence = max(checkpoint.sequence, since)
        history = history_of(reports, state.epoch)
        break
    else:
        start, name = start_state(cub), cub.trial.name
        what = f"WARNING: no checkpoint of {name} can be read" if checkpoints else f"{name} has no checkpoints"
        on_trouble(f"{what}; it is trained again from its start")
        steps = [i for i in applied if i.kind in STEERING]
        until = place_after(steps[-1]) if steps else start.point
        again = Retrace(cub.trainer, Passed(start, beginning), steps, until)
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


def start_state(cub: Cub) -> State:
    """Return the state that a babysat trial began with: from its checkpoint, or trained again to the same bits.

    Raises:
        CheckpointError: its checkpoint cannot be read, and it cannot be trained again either.
    """
    trouble, parent = f"{cub.trial.name} has no checkpoint to start from", cub.trial.parent
    for checkpoint in cub.checkpoints():
        if "start" not in checkpoint.pins:
            continue
        try:
            return cub.shelf.load(checkpoint).state
        except CheckpointError as error:
            trouble = str(error)
    if parent is not None:
        found = _end_of_parent(cub)
        if found is None:
            raise CheckpointError(f"{trouble}; start anew from its parent: {command('panda', 'start', parent)}")
        return found
    # a trial of a sweep, or a fresh one, is a function of seed and number
    return retrained(cub.trainer, cub.session.start_params, cub.session.settings.get("start_epoch", 0))


def _end_of_parent(cub: Cub) -> State | None:
    """Return the state in which the parent of a trial ended; None where the trial may not have begun with that."""
    study, _, number = (cub.trial.parent or "").rpartition("/")
    if study != cub.spec.name or "asked_by" in cub.session.settings:  # a branch may begin anywhere
        return None
    parents = cub.storage.trials(study, where=f"number = {int(number)}")
    if not parents or not parents[0].state.is_finished or parents[0].epoch != cub.trial.parent_epoch:
        return None
    parent, beside = parents[0], cub.trainer.of(parents[0].number)
    session = cub.storage.sessions.get(study, parent.number)
    if session is not None:
        shelf = cub.shelf.of(parent.number)
        return end_state(replace(cub, session=session, trial=parent, shelf=shelf, trainer=beside), lambda line: None)
    return None if parent.parent else retrained(beside, parent.params, parent.epoch)


def retrained(trainer: Trainer, params: Params, epoch: int) -> State:
    """Return the state of a trial of a sweep after some epochs, trained again to the same bits.

    Raises:
        CheckpointError: it diverges on the way.
    """
    advance = trainer.advance(None, params, epoch)
    if advance.state is None:
        raise CheckpointError(f"training it again diverged before epoch {epoch}: the machine or caviar has changed")
    return advance.state


def end_state(cub: Cub, on_trouble: Callable[[str], None]) -> State:
    """Return the state in which a finished trial ended, trained again where its last checkpoint could not be read.

    Raises:
        CheckpointError: nothing is left to start from, or it does not go as it went.
    """
    revived = revive(cub, on_trouble)
    current = [(c.epoch, c.batch) for c in revived.checkpoints if not c.abandoned]
    stops = [(i.epoch or 0, i.batch or 0) for i in revived.ahead if i.kind == "stop"]
    until = max([*current, *stops, (cub.trial.epoch, 0)])
    if revived.state.point >= until:
        return revived.state
    return Retrace(cub.trainer, Passed(revived.state, revived.course), revived.ahead, until).run().state


def passed_state(cub: Cub, is_interrupted: Callable[[], bool] = lambda: False) -> Passed:
    """Return how a trial stood at the end of an epoch, `cub.trial.epoch`, on the timeline in force.

    It comes from a checkpoint, or the run is retraced from its start.

    Raises:
        CheckpointError: neither can be had.
        KeyboardInterrupt: interrupted on the way.
    """
    trial, beginning = cub.trial, cub.beginning
    point = (trial.epoch, 0)
    for checkpoint in reversed(cub.checkpoints()):
        if not checkpoint.abandoned and (checkpoint.epoch, checkpoint.batch) == point:
            with suppress(CheckpointError):
                loaded = cub.shelf.load(checkpoint)
                return Passed(loaded.state, replace(beginning, params=loaded.params))
    if trial.parent is None and trial.epoch < cub.session.settings.get("start_epoch", 0):
        return Passed(retrained(cub.trainer, beginning.params, trial.epoch), beginning)
    found: Passed | None = None

    def keep(now: Passed, intervention: Intervention | None) -> None:
        nonlocal found
        if is_interrupted():
            raise KeyboardInterrupt
        if now.state.point == point:  # the last time that it is passed is that of the timeline in force
            found = now

    start = Passed(start_state(cub), beginning)
    keep(start, None)
    Retrace(cub.trainer, start, cub.applied(), point, keep).run()
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
