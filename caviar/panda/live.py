"""A babysat model in memory and its record in the database, which are changed together."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from caviar.errors import CheckpointError, RequestRejected
from caviar.panda.adjustable import adjustable_of
from caviar.panda.course import STEERING, Course, steered, with_settings
from caviar.panda.retrace import RunDiverged
from caviar.panda.revive import Revived
from caviar.panda.rules import make_rules
from caviar.panda.scribe import Entry, Scribe
from caviar.panda.shelf import Policy, Shelf, best_epoch
from caviar.panda.trainer import Trainer
from caviar.panda.verbs import VERBS, Outcome
from caviar.panda.watch import Watch
from caviar.records import (
    Intervention,
    Params,
    Reason,
    Report,
    Reports,
    Session,
    Status,
    StoredCheckpoint,
    StudySpec,
    Trial,
    TrialResult,
    TrialState,
)
from caviar.storage import Storage
from caviar.storage.holder import new_holder, shown
from caviar.training.state import State

#: Requests that leave behind what came after the moment at which they are applied.
_LEAVING = ("set", "stop")


class LiveRun:
    """One model being trained, its timeline, and the writing of both.

    Promises: an intervention is in the database before the model is trained further.
    """

    def __init__(
        self,
        storage: Storage,
        spec: StudySpec,
        session: Session,
        trainer: Trainer,
        root: Path,
        on_event: Callable[[str], None],
    ) -> None:
        self.storage, self.spec, self.root = storage, spec, root
        self._trainer, self._on_event = trainer, on_event
        self._owner = new_holder()
        self._in_force: tuple[Course, dict[str, Any]] | None = None
        self.trial: Trial = storage.get_trial(spec.name, session.number)
        self._take_settings(session)
        self.shelf = Shelf(root, spec, self.trial.number, storage.identity)
        self.is_paused = False
        #: Ended for good: it has all its epochs, was stopped, or diverged.
        self.is_over = False
        #: The epoch with the best value of the study's metric so far.
        self.best_epoch: int | None = None

    def _take_settings(self, session: Session) -> None:
        self._session = session
        self.policy = Policy(**session.settings.get("checkpoints", {}))
        #: What may be changed.
        self.adjustable = adjustable_of(self.spec, session.start_params)
        self._rules = make_rules(session.settings.get("rules", {}), self.spec)

    @property
    def params(self) -> dict[str, Any]:
        """The params in force, completed by the defaults."""
        if not hasattr(self, "course"):
            return self.adjustable.completed(self.trial.params)
        if self._in_force is None or self._in_force[0] is not self.course:
            self._in_force = (self.course, self.adjustable.completed(self.course.params))
        return dict(self._in_force[1])

    def values(self, names: Iterable[str]) -> dict[str, Any]:
        """Return what is in force, or will be from the next epoch on, under names that may be set."""
        return {name: self.course.value(name, self.adjustable) for name in names}

    def try_params(self, state: State, changes: Params, params: Params | None = None) -> None:
        """Check that a model of the user's own goes on from a state with some params changed.

        Args:
            state: to go on from.
            changes: to the params in force; `epochs` is none of the model's.
            params: instead of those in force.

        Raises:
            RequestRejected: it refuses; the message is its own.
        """
        before = self.course.params if params is None else params
        wanted = with_settings(before, changes)
        if self.spec.trainable is not None and wanted != dict(before):
            self._trainer.try_params(state, wanted)

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.state.epoch

    @property
    def epochs(self) -> int | None:
        """Epochs to train in all; None is until it is stopped."""
        return self.course.epochs

    @property
    def checkpoints(self) -> list[StoredCheckpoint]:
        """The checkpoints on the timeline that is in force, up to now, oldest first."""
        # later ones are those that could not be read when this session began: they are being trained again
        return [c for c in self.scribe.checkpoints if not c.abandoned and (c.epoch, c.batch) <= self.state.point]

    @property
    def is_at_epoch_end(self) -> bool:
        """Whether an epoch has just been completed here, and nothing came after it."""
        return self.state.batch == 0 and self.epoch in self.history

    def keep(self, pin: str) -> None:
        """Write a checkpoint of this moment, now.

        Raises:
            CheckpointError: it could not be written.
        """
        self._write(state=self.state, pins=(pin,))
        self.scribe.flush()
        if all((c.epoch, c.batch) != self.state.point or pin not in c.pins for c in self.checkpoints):
            raise CheckpointError(self.scribe.trouble or f"epoch {self.epoch} could not be kept")

    def _begin(self, revived: Revived) -> None:
        self.state: State = revived.state
        self.course: Course = revived.course
        self.history = revived.history
        self.interventions = revived.applied
        self._recorded = deque(revived.ahead)
        self._segment, self._sequence = revived.segment, revived.sequence
        self._end = revived.end
        self._epoch_end = None if self.state.batch else self.state
        self._is_stopped = False
        self._unanswered = [i for i in revived.applied if i.kind in STEERING and i.metrics_after is None]
        self.watch = Watch(self._rules, self.history, self.spec.direction_of)
        self.best_epoch = best_epoch(self.history, self.spec)
        self.seconds = self.trial.seconds or 0.0
        self.scribe = Scribe(
            self.storage,
            (self.spec.name, self.trial.number),
            self._owner,
            self.shelf,
            self.policy,
            revived.checkpoints,
            self._say,
        )
        self.trial = replace(
            self.trial,
            state=TrialState.RUNNING,
            started_at=self.trial.started_at or datetime.now(UTC),
            worker=shown(self._owner),
        )
        for past in self.interventions:
            self._take_over_flags(past)
        self._write()

    def _follow_record(self) -> None:
        """Apply again, where they were applied, the interventions that are newer than the last checkpoint.

        Where that ends within an epoch, a checkpoint says so: to whoever asks, and after another crash.
        """
        was_behind = bool(self._recorded)
        while self._recorded:
            next_one = self._recorded[0]
            here = (next_one.epoch, next_one.batch) == self.state.point
            if not here and next_one.kind in (*STEERING, "stop"):
                return
            # what neither steers nor ends leaves no trace in the weights: its place need not be met
            self._recorded.popleft()
            self.interventions.append(next_one)
            self._sequence = next_one.sequence or self._sequence
            self._take_over_flags(next_one)
            if next_one.kind == "set":
                self.course = steered(self.course, "set", next_one.arguments, bool(self.state.batch))
                self._unanswered.append(next_one)
        if was_behind and self.state.batch:
            self._write(state=self.state)

    def _take_over_flags(self, past: Intervention) -> None:
        if past.kind in ("pause", "resume"):
            self.is_paused = past.kind == "pause"
        elif past.kind == "stop":
            self._is_stopped = True

    def _train_on(self) -> Report | None:
        """Train for a few mini-batches; return a report where that ended an epoch.

        Raises:
            RunDiverged: the loss became NaN or infinite; the state is what it was.
        """
        ahead = self._recorded[0] if self._recorded else None
        limit = None if ahead is None else (ahead.epoch or 0, ahead.batch or 0)
        stop = self._trainer.next_stop(self.state, self.params.get("batch_size"), limit)
        advance = self._trainer.advance(self.state, self.course.params, stop)
        self.seconds += advance.seconds
        if advance.state is None:
            raise RunDiverged(f"diverged at epoch {self.epoch + 1}")
        self.state = advance.state
        if self.state.batch:
            return None
        self.course, self._epoch_end = self.course.at_epoch_start(), self.state
        metrics = advance.metrics[self.epoch]
        self.history[self.epoch] = metrics
        self.watch.see(self.epoch, metrics)
        candidates = {epoch: self.history[epoch] for epoch in (self.best_epoch, self.epoch) if epoch is not None}
        self.best_epoch = best_epoch(candidates, self.spec)
        report = Report(epoch=self.epoch, step=self.state.step, metrics=metrics)
        answered = tuple(replace(i, metrics_after=report.metrics) for i in self._unanswered)
        self._unanswered = []
        self._write(report, state=self.state if self.policy.is_due(self.epoch) else None, answered=answered)
        return report

    def _answer(self, asked: Intervention) -> Intervention:
        """Apply a request, or reject it, and write down what became of it, before the model is trained further."""
        answered = replace(asked, applied_at=datetime.now(UTC))
        self.scribe.flush()  # the verbs look at the checkpoints, and may pin some
        try:
            verb = VERBS.get(asked.kind)
            if verb is None:
                raise RequestRejected(f"unknown request {asked.kind!r} (known: {', '.join(VERBS)})")
            outcome: Outcome = verb(self, asked)
            if asked.kind in _LEAVING and self.state.point < self._end:
                self._leave_behind()
                outcome = verb(self, asked)
        except (RequestRejected, CheckpointError) as error:
            answered = replace(answered, status=Status.REJECTED, message=str(error))
            self.storage.sessions.answer(answered, self._owner)
            self._say(f"rejected: {asked.kind}: {error}")
            return answered
        state = self.state
        answered = replace(
            answered,
            arguments=outcome.arguments,
            status=Status.APPLIED,
            message=outcome.message,
            sequence=self._sequence + 1,
            epoch=state.epoch,
            batch=state.batch,
            step=state.step,
            before=outcome.before,
            after=outcome.after,
            metrics_before=self.history.get(state.epoch),
        )
        self.storage.sessions.answer(
            answered, self._owner, rollback_to=outcome.target if outcome.state else None, pinned=outcome.pinned
        )
        self._put_in_force(answered, outcome)
        by = f" ({answered.author})" if answered.author else ""
        self._say(f"epoch {state.epoch}, step {state.step}: {asked.kind}: {outcome.message}{by}")
        return answered

    def _leave_behind(self) -> None:
        """Record as a rollback that the run is steered before its end, which no checkpoint was left of to go on from.

        Else what lies between would be of two timelines, and come back with the checkpoints' disk.

        Raises:
            CheckpointError: there is no room for a checkpoint of this moment.
        """
        here, (epoch, batch) = self.state, self._end
        self.keep("rollback")
        target = next(c for c in self.checkpoints if (c.epoch, c.batch) == here.point)
        steps = [c.step for c in self.scribe.checkpoints if not c.abandoned and (c.epoch, c.batch) == self._end]
        step = steps[-1] if steps else None
        now = datetime.now(UTC)
        gone_back = Intervention(
            trial=self.trial.name,
            token=uuid.uuid4().hex,
            kind="rollback",
            arguments={"to": "epoch", "at": here.epoch},
            author="caviar",
            status=Status.APPLIED,
            message=f"back from epoch {epoch} to epoch {here.epoch}, step {here.step}: no later state was left",
            sequence=self._sequence + 1,
            epoch=epoch,
            batch=batch,
            step=step,
            before={"epoch": epoch, "batch": batch, "step": step},
            after={"epoch": here.epoch, "batch": here.batch, "step": here.step},
            asked_at=now,
            applied_at=now,
        )
        self.storage.sessions.answer(gone_back, self._owner, rollback_to=target)
        self._put_in_force(gone_back, Outcome(message=gone_back.message or "", state=here, target=target))
        self._say(f"rollback: {gone_back.message}")

    def _put_in_force(self, answered: Intervention, outcome: Outcome) -> None:
        self._sequence += 1
        self.interventions.append(answered)
        self._take_over_flags(answered)
        for changed in outcome.pinned:
            self.scribe.checkpoints[:] = [changed if c.path == changed.path else c for c in self.scribe.checkpoints]
        if outcome.state is not None and outcome.target is not None:
            target = outcome.target
            self._segment += 1
            self.state, self._end = outcome.state, outcome.state.point
            self._epoch_end = None if self.state.batch else self.state
            self.history = {epoch: m for epoch, m in self.history.items() if epoch <= target.epoch}
            self.watch = Watch(self._rules, self.history, self.spec.direction_of)
            self.best_epoch = best_epoch(self.history, self.spec)
            self.scribe.checkpoints[:] = [
                replace(c, abandoned=True) if (c.epoch, c.batch) > (target.epoch, target.batch) else c
                for c in self.scribe.checkpoints
            ]
            if not self.state.batch:
                self.course = self.course.at_epoch_start()
        if answered.kind in STEERING:
            self.course = steered(self.course, answered.kind, answered.arguments, bool(self.state.batch))
            self._unanswered.append(answered)
            self._write()
        elif answered.kind == "pause":
            self._write(state=self.state)

    def _write(
        self,
        report: Report | None = None,
        *,
        state: State | None = None,
        pins: tuple[str, ...] = (),
        answered: tuple[Intervention, ...] = (),
    ) -> None:
        """Bring the trial in the database up to date, behind training's back."""
        metrics = dict(self.history.get(self.epoch, {}))
        self.trial = replace(
            self.trial, params=self.course.params, metrics=metrics, epoch=self.epoch, seconds=self.seconds
        )
        reports = None
        if report is not None:
            names = tuple(report.metrics)
            reports = Reports(report.epoch, names, np.array([[report.metrics[name] for name in names]]))  # 1,K
        self.scribe.put(
            Entry(
                result=TrialResult(trial=self.trial, reports=reports),
                state=state,
                params=self.course.params,
                segment=self._segment,
                sequence=self._sequence,
                pins=pins,
                best_epoch=self.best_epoch,
                answered=answered,
            )
        )

    def _finish(self, reason: Reason | None, error: str | None = None) -> None:
        """End the trial for good."""
        metrics = self.history.get(self.epoch, {})
        value = metrics.get(self.spec.metric)
        if error is not None:
            state = TrialState.FAIL
        else:
            # stopped before its first epoch was done, it has nothing to be compared by
            state = TrialState.COMPLETE if value is not None else TrialState.PRUNED
        self.trial = replace(
            self.trial,
            state=state,
            value=value if state is TrialState.COMPLETE else None,
            reason=reason,
            error=error,
            finished_at=datetime.now(UTC),
        )
        self.is_over = True
        self._write(state=self.state, pins=("last",))
        self.scribe.flush()

    def _say(self, line: str) -> None:
        self._on_event(line)
