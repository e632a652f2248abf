"""Taking a model into panda mode, whatever became of it so far."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from caviar.errors import CheckpointError, PandaBusy, RequestRejected, StorageError, StudyBusy
from caviar.execution.base import Executor
from caviar.panda.adjustable import Adjustable, adjustable_of, check_epochs
from caviar.panda.course import fold
from caviar.panda.found import found_trial, fresh_params, keep_start
from caviar.panda.revive import Cub, end_state, passed_state, retrained, start_state
from caviar.panda.rules import DEFAULT_RULES, make_rules
from caviar.panda.session import PandaSession
from caviar.panda.shelf import Policy, Shelf
from caviar.panda.trainer import Trainer
from caviar.records import Intervention, Params, Session, Status, StudySpec, Trial, TrialState
from caviar.storage import Storage
from caviar.storage.holder import new_holder
from caviar.training.agreement import another, differing
from caviar.training.dataset import Dataset
from caviar.training.state import State
from caviar.wording import command

_LEASE_S = 15.0
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Horizon:
    """How long a model is to be trained; where nothing is given, as long as the study's trials are, once more."""

    #: In all.
    epochs: int | None = None
    #: From now on.
    more_epochs: int | None = None
    until_stopped: bool = False

    def __post_init__(self) -> None:
        given = [self.epochs is not None, self.more_epochs is not None, self.until_stopped]
        if sum(given) > 1:
            raise RequestRejected("give one of epochs, more epochs, and until stopped")
        if self.more_epochs is not None and self.more_epochs < 1:
            raise RequestRejected(f"at least 1 more epoch must be trained, found {self.more_epochs}")

    @property
    def is_given(self) -> bool:
        """Whether anything is."""
        return self.until_stopped or self.epochs is not None or self.more_epochs is not None

    def total(self, done: int, default: int) -> int | None:
        """Return the epochs to train in all, None for until stopped.

        Args:
            done: epochs that the model has.
            default: epochs in all, where nothing is given.

        Raises:
            RequestRejected: they are done already.
        """
        if self.until_stopped:
            return None
        if self.more_epochs is not None:
            return done + self.more_epochs
        if self.epochs is None:
            return default
        if self.epochs <= done:
            raise RequestRejected(
                f"the model has {done} epochs already, found epochs = {self.epochs}, which is how many it has in the "
                f"end; to train {self.epochs} more, give +{self.epochs}"
            )
        return check_epochs(self.epochs, done)


@dataclass(frozen=True, kw_only=True)
class Nursery:
    """What every start needs: the study, its data, where to train, where to keep checkpoints, whom to tell."""

    storage: Storage
    spec: StudySpec
    data: Dataset | None
    executor: Executor
    root: Path
    author: str | None = None
    #: None is :class:`Policy` as it comes, or as it was before.
    policy: Policy | None = None
    #: As :func:`caviar.panda.rules.make_rules` takes them; None is those that only warn.
    rules: Mapping[str, Any] | None = None
    on_event: Callable[[str], None] = lambda line: None
    is_interrupted: Callable[[], bool] = lambda: False

    def fresh(self, params: Mapping[str, Any], horizon: Horizon) -> PandaSession:
        """Start a fresh model.

        Args:
            params: those given; the others are what the space fixes, or the defaults.
            horizon: how long it is trained.

        Raises:
            RequestRejected: a param is unknown or not valid.
            CheckpointError: there is no room for its first checkpoint; nothing is added.
        """
        epochs = horizon.total(0, self.spec.epochs)
        trial = Trial(
            study=self.spec.name,
            number=0,
            state=TrialState.WAITING,
            params=fresh_params(self.spec, params),
            space_version=self.spec.space_version,
        )

        def state_of(number: int) -> State:  # which is part of the key of all randomness
            return retrained(self.trainer(number), trial.params, 0)

        made = found_trial(self.storage, self.spec, self.root, trial, self._settings(epochs), state_of)
        return self._session(made.number, {})

    def take(self, number: int, changes: Mapping[str, Any], horizon: Horizon) -> PandaSession:
        """Take a trial: go on with one that is babysat, take one from its sweep, or add a child to a finished one.

        Args:
            number: of the trial.
            changes: settings to change at once.
            horizon: how long it is trained.

        Raises:
            TrialNotFound: there is none of that number.
            RequestRejected: a setting is not adjustable or not valid, or the epochs are done already.
            CheckpointError: its last state cannot be had.
            KeyboardInterrupt: interrupted while waiting for the sweep.
        """
        trial = self.storage.get_trial(self.spec.name, number)
        if (
            not trial.state.is_finished
        ):  # before a sweep gives it away; a child is made only once all is known to be right
            _check_wishes(changes, horizon, adjustable_of(self.spec, trial.params))
            horizon.total(trial.epoch, self.spec.epochs)
            self._settings(None)
            if self.spec.trainable is not None and self.storage.sessions.get(self.spec.name, number) is None:
                retrained(self.trainer(number), trial.params, 0)  # a function that nobody could tell for one is refused
        requests: list[Intervention] = []
        try:
            return self._take(number, changes, horizon, requests)
        except BaseException:
            for asked in requests:
                self._withdraw(asked)
            raise

    def _take(
        self, number: int, changes: Mapping[str, Any], horizon: Horizon, requests: list[Intervention]
    ) -> PandaSession:
        """See :meth:`take`; a request to a sweep is added to `requests`."""
        asked: Intervention | None = None
        was_rejected = False
        while True:
            trial = self.storage.get_trial(self.spec.name, number)
            session = self.storage.sessions.get(self.spec.name, number)
            if trial.state.is_finished:
                return self._child(trial, changes, horizon)
            if session is not None:
                return self._go_on(trial, changes, horizon)
            if self._adopt(trial, None if was_rejected else asked):
                continue
            if asked is None:
                asked = self._ask_sweep(trial)
                requests.append(asked)
            answer = self.storage.sessions.intervention(self.spec.name, number, asked.token)
            if answer is not None and answer.status is Status.REJECTED and was_rejected:
                raise RequestRejected(f"the sweep keeps {trial.name}: {answer.message}")
            # the trial is looked at once more: the answer may be that it has ended
            was_rejected = answer is not None and answer.status is Status.REJECTED
            if self.is_interrupted():
                raise KeyboardInterrupt
            time.sleep(_POLL_S)

    def _withdraw(self, asked: Intervention) -> None:
        """Take a request back; where it is too late for that, say so."""
        with suppress(StorageError):
            if self.storage.sessions.withdraw(asked):
                self.on_event(f"the request for {asked.trial} is withdrawn: its sweep keeps it")
                return
            answer = self.storage.sessions.intervention(self.spec.name, asked.number, asked.token)
            if answer is not None and answer.status is Status.APPLIED:
                self.on_event(
                    f"{asked.trial} has left its sweep and waits; go on with: {command('panda', 'start', asked.trial)}"
                )

    def _settings(self, epochs: int | None) -> dict[str, Any]:
        rules = make_rules(DEFAULT_RULES if self.rules is None else self.rules, self.spec)
        return {
            "epochs": epochs,
            "checkpoints": asdict(self.policy or Policy()),
            "rules": {name: asdict(rule) for name, rule in rules.items()},
        }

    def _session(
        self, number: int, first: Mapping[str, Any], settings: Mapping[str, Any] | None = None
    ) -> PandaSession:
        session = self.storage.sessions.get(self.spec.name, number)
        assert session is not None
        return PandaSession(
            self.storage,
            self.spec,
            session,
            self.trainer(number),
            self.root,
            first=first,
            settings=settings,
            author=self.author,
            on_event=self.on_event,
            is_interrupted=self.is_interrupted,
        )

    def trainer(self, number: int) -> Trainer:
        """Return what trains one trial of the study."""
        return Trainer(self.executor, self.spec, None if self.data is None else len(self.data.train), number)

    def shelf(self, number: int) -> Shelf:
        """Return where the checkpoints of one trial of the study lie."""
        return Shelf(self.root, self.spec, number, self.storage.identity)

    def cub(self, trial: Trial, session: Session) -> Cub:
        """Return a babysat trial of the study with all from which its states are had."""
        number = trial.number
        shelf, trainer = self.shelf(number), self.trainer(number)
        return Cub(storage=self.storage, spec=self.spec, session=session, trial=trial, shelf=shelf, trainer=trainer)

    def _child(self, parent: Trial, changes: Mapping[str, Any], horizon: Horizon) -> PandaSession:
        """Add a trial that goes on where a finished one ended, which stays as it is."""
        settings = _check_wishes(changes, horizon, adjustable_of(self.spec, parent.params), epochs_done=parent.epoch)
        epochs = settings.pop("epochs", horizon.total(parent.epoch, parent.epoch + self.spec.epochs))
        params = {**parent.params, **self._put_off(parent), **settings}
        session_settings = self._settings(epochs)  # refused before a model is trained for long
        state = self.last_state(parent)
        if self.spec.trainable is not None and params != dict(parent.params):
            self.trainer(parent.number).try_params(state, params)
        trial = Trial(
            study=self.spec.name,
            number=0,
            state=TrialState.WAITING,
            params=params,
            parent=parent.name,
            parent_epoch=parent.epoch,
            epoch=parent.epoch,
            space_version=parent.space_version,
        )
        made = found_trial(self.storage, self.spec, self.root, trial, session_settings, lambda number: state)
        self.on_event(f"{made.name} goes on from epoch {parent.epoch} of {parent.name}")
        return self._session(made.number, {})

    def _put_off(self, parent: Trial) -> Params:
        """Return what was set within the last epoch of a trial to hold from the next one on."""
        session = self.storage.sessions.get(self.spec.name, parent.number)
        if session is None:
            return {}
        cub = self.cub(parent, session)
        return fold(cub.beginning, cub.applied()).next_params

    def _go_on(self, trial: Trial, changes: Mapping[str, Any], horizon: Horizon) -> PandaSession:
        first = _check_wishes(changes, horizon, adjustable_of(self.spec, trial.params))
        session = self.storage.sessions.get(self.spec.name, trial.number)
        assert session is not None
        shelf = self.shelf(trial.number)
        if not self.storage.sessions.checkpoints(self.spec.name, trial.number):
            # taken before it was trained, or by a process that died before it could write its first state
            keep_start(self.storage, shelf, trial, start_state(self.cub(trial, session)))
        if horizon.is_given:
            first["epochs"] = horizon.total(trial.epoch, self.spec.epochs)
        given = {"rules": self.rules, "checkpoints": self.policy}
        settings = self._settings(None)
        changed = {
            name: settings[name] for name, value in given.items() if value is not None or name not in session.settings
        }
        return self._session(trial.number, first, changed)

    def _adopt(self, trial: Trial, asked: Intervention | None) -> bool:
        """Make a trial that no coordinator looks after a babysat one; return whether that was so."""
        owner = new_holder()
        try:
            self.storage.acquire_lease(self.spec.name, owner, _LEASE_S)
        except StudyBusy:
            return False
        try:
            start = replace(trial, state=TrialState.WAITING, epoch=0, metrics={})
            answer = None
            if asked is not None:
                answer = replace(asked, status=Status.APPLIED, message="taken: its sweep had ended", epoch=0)
            settings = {**self._settings(self.spec.epochs), "start_epoch": 0}
            self.storage.sessions.adopt(start, settings, answer=answer)
        except PandaBusy:  # another process was faster, or it has ended meanwhile
            return True
        finally:
            self.storage.release_lease(self.spec.name, owner)
        return True

    def _ask_sweep(self, trial: Trial) -> Intervention:
        self.on_event(f"asked the sweep of {self.spec.name!r} for {trial.name}; it hands over at the end of a slice")
        return self.storage.sessions.ask(
            Intervention(
                trial=trial.name,
                token=uuid.uuid4().hex,
                kind="take",
                # so that the sweep keeps it where whoever asked has died
                arguments={"holder": new_holder()},
                author=self.author,
            )
        )

    def last_state(self, trial: Trial) -> State:
        """Return the state in which a finished trial ended: from its checkpoints, or trained again to the same bits.

        Raises:
            CheckpointError: it cannot be had.
            KeyboardInterrupt: interrupted between two epochs of training it again.
        """
        session = self.storage.sessions.get(self.spec.name, trial.number)
        if session is not None:
            return end_state(self.cub(trial, session), self.on_event)
        if trial.parent is not None:
            raise CheckpointError(
                f"the last state of {trial.name} cannot be had: it goes on from {trial.parent}, and its own states are "
                "not here, as it was imported; use a trial of a sweep"
            )
        if trial.epoch:
            self.on_event(f"training {trial.name} again to its epoch {trial.epoch}")
        trainer = self.trainer(trial.number)
        again = trainer.advance(None, trial.params, min(trial.epoch, 1))
        while again.state is not None and again.state.epoch < trial.epoch:
            if self.is_interrupted():
                raise KeyboardInterrupt
            again = trainer.advance(again.state, trial.params, again.state.epoch + 1)
        if again.state is None:
            raise CheckpointError(
                f"training {trial.name} again diverged: it was trained on other data or another machine"
            )
        self._compare(trial, self.spec.telling(again.metrics.get(trial.epoch, {})))
        return again.state

    def earlier_state(self, trial: Trial) -> tuple[State, Params]:
        """Return the state and the params in force of a finished trial at an earlier epoch; `trial` is as of then.

        Raises:
            CheckpointError, KeyboardInterrupt: as :meth:`last_state`.
        """
        session = self.storage.sessions.get(self.spec.name, trial.number)
        if session is None:
            return self.last_state(trial), trial.params
        passed = passed_state(self.cub(trial, session), self.is_interrupted)
        return passed.state, passed.course.params

    def _compare(self, trial: Trial, again: Mapping[str, float]) -> None:
        """Tell that a trial trained again differs in the last bits; refuse one that is another model altogether.

        Raises:
            CheckpointError: it is.
        """
        name = another(trial.metrics, again)
        if name is not None:
            raise CheckpointError(
                f"the last state of {trial.name} cannot be had: trained again from its params, it ends with {name} "
                f"{again[name]:.6g}, not {trial.metrics[name]:.6g}; it was steered or trained elsewhere, and its "
                "states are not here"
            )
        differences = differing(trial.metrics, again)
        if differences:
            name, value = next(iter(differences.items()))
            self.on_event(
                f"WARNING: trained again, {trial.name} ends with {name} {value!r}, not {trial.metrics[name]!r}: other "
                "processors and versions differ in the last bits, and one that was steered elsewhere differs more"
            )


def _check_wishes(
    changes: Mapping[str, Any], horizon: Horizon, adjustable: Adjustable, *, epochs_done: int = 0
) -> dict[str, Any]:
    """Return the settings to change at once with their types put right.

    Raises:
        RequestRejected: one is not adjustable or not valid, or epochs are given twice.
    """
    settings = adjustable.check(changes, epochs_done=epochs_done) if changes else {}
    if "epochs" in settings and horizon.is_given:
        raise RequestRejected("epochs are given twice: among the settings, and besides them")
    return settings
