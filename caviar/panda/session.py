"""Panda mode: the loop around one model, and what a person calls to steer it."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from caviar.errors import CheckpointError, PandaBusy, RequestRejected, SettingsError, StorageError
from caviar.panda.course import place, place_after
from caviar.panda.listener import Listener
from caviar.panda.live import LiveRun
from caviar.panda.retrace import RunDiverged
from caviar.panda.revive import Cub, passed_state, revive
from caviar.panda.scribe import LEASE_S, Entry
from caviar.panda.trainer import Trainer
from caviar.panda.watch import Action
from caviar.records import Intervention, Reason, Report, Session, Status, StudySpec, Trial, TrialResult
from caviar.storage import Storage
from caviar.wording import command

#: How often a paused run looks whether it is to be left.
_LOOK_PAUSED_S = 0.1


class PandaSession(LiveRun):
    """One babysat model: iterate over its reports, and steer it by the verbs.

    Use it in `with`: training starts where the last checkpoint is, and goes on with each report that is asked for;
    leaving early keeps a checkpoint, from which a later session goes on. Verbs called here are applied at once;
    requests of other processes are applied at the next mini-batch, or epoch of a user's own model.

    Promises: what was done to the model is in the database before the model is trained further, so that a run can be
    interrupted anywhere, gone through again and compared, to the bit.

    Args:
        storage: the trial database.
        spec: of the study.
        session: of the trial, as it is in the database.
        trainer: trains.
        root: the checkpoint folder.
        first: params to change before anything else.
        settings: of the session, to replace once it is this process that babysits the trial.
        author: who calls the verbs here, for the log.
        on_event: called with each thing that people should know, as one line.
        is_interrupted: asked now and then; once it is true the iteration ends, with a checkpoint.

    Raises:
        PandaBusy: another process babysits the trial.
    """

    def __init__(
        self,
        storage: Storage,
        spec: StudySpec,
        session: Session,
        trainer: Trainer,
        root: Path,
        *,
        first: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        author: str | None = None,
        on_event: Callable[[str], None] = lambda line: None,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(storage, spec, session, trainer, root, on_event)
        self._first, self._settings = dict(first or {}), settings
        self._author, self._is_interrupted = author, is_interrupted
        self._has_left = False
        #: Reports that came while it was caught up with the record.
        self._passed: deque[Report] = deque()
        #: Where the rules were asked last: the segment and its epoch.
        self._asked_at: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"PandaSession({self.trial.name!r}, state={self.trial.state}, epoch={self.trial.epoch})"

    def __enter__(self) -> PandaSession:
        if hasattr(self, "scribe"):
            raise SettingsError(f"{self.trial.name} is or was babysat by this already; open another with study.panda")
        name = (self.spec.name, self.trial.number)
        try:
            self.storage.sessions.acquire(*name, self._owner, LEASE_S)
        except BaseException:
            self._trainer.close()
            raise
        try:
            self._look_again()
            revived = revive(self._cub, self._say)
        except BaseException:
            self.storage.sessions.release(*name, self._owner)
            self._trainer.close()
            raise
        self._begin(revived)
        self._listener = Listener(self.storage, name)
        try:
            if self._first:
                self._take_first()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_left = True
        try:
            if not self.is_over:
                self._write(state=self.state, pins=("last",))  # to go on from here
            self.scribe.flush()
        except Exception as failure:  # what ended the run is raised, not what came of it
            if kind is None:
                raise
            self._say(f"could not write at the end: {failure}")
        finally:
            self._listener.close()
            self.scribe.close()
            try:
                self.storage.sessions.release(self.spec.name, self.trial.number, self._owner)
            except StorageError as failure:  # then the lease expires by itself
                self._say(str(failure))
            self._trainer.close()

    def __iter__(self) -> Iterator[Report]:
        self._check_entered()
        return self

    def __next__(self) -> Report:
        """Train to the end of the next epoch, and return its report."""
        self._check_entered()
        if self._passed:
            return self._passed.popleft()
        while True:
            self._follow_record()
            if self.is_at_epoch_end and not (self._recorded or self._is_stopped or self.is_over):
                self._ask_rules()
            self._serve()
            if self._is_done():
                self._finish(Reason.STOPPED if self._is_stopped else None)
                self._judge_if_best()
            if self.is_over or self._is_interrupted():
                raise StopIteration
            report = self._step()
            if report is not None:
                return report

    # the verbs

    def set(self, **settings: Any) -> Intervention:
        """Change settings from the next update on.

        `batch_size`, and those of a model of the user's own, change from the next epoch on.

        Raises:
            RequestRejected: a name is not adjustable, or a value is not valid.
        """
        return self.apply("set", settings)

    def rollback(
        self, *, epoch: int | None = None, epochs: int | None = None, best: bool = False, **settings: Any
    ) -> Intervention:
        """Go back to the checkpoint of an epoch, of so many epochs ago, or of the best epoch.

        Weights, moments and statistics are those of then; the settings stay as they are, or as given here.

        Raises:
            RequestRejected: there is no such checkpoint; the message lists those there are.
        """
        return self.apply("rollback", {**place(epoch, epochs, best), **settings})

    def branch(
        self, *, epoch: int | None = None, epochs: int | None = None, best: bool = False, **settings: Any
    ) -> Trial:
        """Make a new trial that goes on from a checkpoint of this one, with other settings; this one goes on.

        Returns:
            The new trial: WAITING, to be babysat by a session of its own.
        """
        made = self.apply("branch", {**place(epoch, epochs, best), **settings})
        assert made.after is not None
        return self.storage.get_trial(self.spec.name, made.after["number"])

    def checkpoint(self) -> Intervention:
        """Keep a checkpoint of this moment."""
        return self.apply("checkpoint", {})

    def stop(self) -> Intervention:
        """End the run: the trial is COMPLETE, with the value of its last epoch."""
        return self.apply("stop", {})

    def _judge_if_best(self) -> None:
        """Look at the test part, for the one model that is the study's best (docs/decisions/0003)."""
        if self.spec.trainable is not None:
            return  # its model reports what it wants to
        best = self.storage.best_trial(self.spec.name)
        if best is not None and best.number == self.trial.number:
            self.judge()

    def judge(self) -> dict[str, float]:
        """Judge the finished model on the test part, and write that: for the one trial that was chosen.

        Returns:
            `test_loss` and `test_accuracy`.

        Raises:
            SettingsError: it is a model of the user's own, which reports what it wants to.
        """
        if self.spec.trainable is not None:
            raise SettingsError(f"only the built-in network is judged on the test part, not {self.spec.trainable.name}")
        state = self._epoch_end  # the value is that of the last whole epoch
        if state is None:
            state = passed_state(self._cub).state
        judged = self._trainer.test(state, self.course.params)
        self.trial = replace(self.trial, metrics={**self.trial.metrics, **judged})
        self.scribe.put(Entry(result=TrialResult(trial=self.trial)))
        self.scribe.flush()
        return judged

    def apply(self, kind: str, arguments: Mapping[str, Any], *, author: str | None = None) -> Intervention:
        """Apply a verb here and now, and record it; where earlier ones are to be met again first, after them.

        Raises:
            RequestRejected: it is not valid, or not possible now.
        """
        self._check_entered()
        self._catch_up()
        return self._apply(kind, arguments, author)

    def _apply(self, kind: str, arguments: Mapping[str, Any], author: str | None) -> Intervention:
        if self.is_over and kind != "branch":
            raise RequestRejected(
                f"{self.trial.name} is {self.trial.state} and stays as it is; study.panda({self.trial.number}) goes on "
                "with a new trial"
            )
        asked = Intervention(
            trial=self.trial.name,
            token=uuid.uuid4().hex,
            kind=kind,
            arguments=arguments,
            author=author or self._author,
            asked_at=datetime.now(UTC),
        )
        answered = self._answer(asked)
        if answered.status is Status.REJECTED:
            raise RequestRejected(answered.message)
        return answered

    def _check_entered(self) -> None:
        if not hasattr(self, "scribe"):
            raise SettingsError("a panda is used in `with`: with study.panda(trial) as panda: ...")
        if self._has_left:
            raise SettingsError(f"the `with` block of {self.trial.name} has been left; open another with study.panda")

    # the loop

    @property
    def _cub(self) -> Cub:
        return Cub(
            storage=self.storage,
            spec=self.spec,
            session=self._session,
            trial=self.trial,
            shelf=self.shelf,
            trainer=self._trainer,
        )

    def _look_again(self) -> None:
        """Read the trial once more, now that it is nobody else's, and clear away what a dead process left."""
        self.trial = self.storage.get_trial(self.spec.name, self.trial.number)
        if self.trial.state.is_finished:
            raise PandaBusy(
                f"{self.trial.name} has just been ended by another process, as {self.trial.state}; start it once more "
                "to go on with a new trial"
            )
        if self._settings:
            self.storage.sessions.configure(self.spec.name, self.trial.number, self._settings)
        session = self.storage.sessions.get(self.spec.name, self.trial.number)
        assert session is not None
        self._take_settings(session)
        self.shelf.sweep_out()

    def _take_first(self) -> None:
        """Change the settings that this start asks for, at the point where the record ends."""
        self._catch_up()
        now = self.values(self._first)
        self.apply("set", {name: value for name, value in self._first.items() if value != now[name]} or self._first)

    def _catch_up(self) -> None:
        """Train to the end of the record, whose interventions come before any other; the reports are not lost."""
        while self._recorded and not self.is_over:
            self._follow_record()
            report = self._step() if self._recorded else None
            if report is not None:
                self._passed.append(report)

    def _serve(self) -> None:
        """Answer what was asked; while paused, wait for more."""
        if self._recorded:
            return
        while not self.is_over:
            self.scribe.check()
            if self._listener.has_heard():
                for asked in self.storage.sessions.asked(self.spec.name, self.trial.number):
                    self._answer(asked)
            if not self.is_paused or self._is_stopped or self._is_interrupted():
                return
            self.scribe.flush()
            self._listener.wait(_LOOK_PAUSED_S)

    def _is_done(self) -> bool:
        if self._recorded or self.is_over:
            return False
        epochs = self.course.epochs
        return self._is_stopped or (epochs is not None and self.epoch >= epochs)

    def _ask_rules(self) -> None:
        if self._asked_at == (self._segment, self.epoch) or self._has_just_gone_back():
            return
        self._asked_at = (self._segment, self.epoch)
        for name, action in self.watch.actions(self.interventions, self.params):
            if action.kind != "warn" and self._has_acted(name):
                continue  # before a crash
            self._act(name, action)

    def _has_just_gone_back(self) -> bool:
        """Return whether this is where the last rollback led: the rules were asked here when it was first reached."""
        last_back = next((i for i in reversed(self.interventions) if i.kind == "rollback"), None)
        return last_back is not None and place_after(last_back) == self.state.point

    def _has_acted(self, rule: str) -> bool:
        """Return whether a rule has done something at this place of this timeline."""
        for past in reversed(self.interventions):
            if past.kind == "rollback":
                return False
            if (past.epoch, past.batch) == self.state.point and past.author == f"rule:{rule}":
                return True
        return False

    def _act(self, name: str, action: Action) -> bool:
        """Do what a rule asks for; return whether it could be done."""
        self._say(f"rule {name}: {action.why}")
        if action.kind == "warn":
            return True
        try:
            self._apply(action.kind, action.arguments, f"rule:{name}")
        except RequestRejected as error:
            self._say(f"rule {name}: {action.kind} was not possible: {error}")
            return False
        return True

    def _step(self) -> Report | None:
        try:
            return self._train_on()
        except RunDiverged:
            self._diverge()
            return None

    def _diverge(self) -> None:
        epoch = self.epoch + 1
        if self._recorded:
            raise CheckpointError(
                f"{self.trial.name} diverged at epoch {epoch} when it was trained again, as it had not: the machine or "
                "caviar has changed"
            )
        for name, action in self.watch.actions_on_divergence(self.interventions, self.params, epoch):
            if self._act(name, action):
                return
        self._finish(Reason.DIVERGED, error=f"diverged at epoch {epoch}")
        rate = self.params.get("learning_rate")
        can_change = "learning_rate" in self.adjustable.names and isinstance(rate, int | float)
        change = f" --set learning_rate={rate / 2:.3g}" if can_change and rate is not None else ""
        self._say(
            f"{self.trial.name} diverged at epoch {epoch}; go on from an earlier epoch: "
            f"{command('panda', 'branch', self.trial.name)} --best{change}"
        )
