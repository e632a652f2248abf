"""Trials of a running sweep that somebody wants to babysit: who asks, and what becomes of that."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum

from caviar.errors import CheckpointError, PandaBusy, StorageUnreachable
from caviar.recorder import Recorder
from caviar.records import Intervention, Status, Trial
from caviar.storage.base import Storage
from caviar.storage.holder import is_dead
from caviar.training.state import State

#: How often the coordinator looks whether somebody wants to babysit one of its trials.
_LOOK_S = 0.25

#: Makes a trial a babysat one: the trial as it stands, its state (None: untrained), and the request for it.
HandOver = Callable[[Trial, State | None, Intervention], None]


class Handed(Enum):
    """What became of a trial that was to be handed over."""

    GIVEN = "given"
    KEPT = "kept"
    #: The database went away meanwhile: it knows whether it was told.
    UNKNOWN = "unknown"


class Requests:
    """The requests for trials of a study that a coordinator sweeps.

    A request that cannot be answered, because the database does not answer, is there at the next look.

    Args:
        storage: the trial database.
        study: name of the study.
        recorder: what it was given is durable before a trial changes hands.
        hand_over: how panda mode takes a trial; where absent, nobody is looked for.
    """

    def __init__(self, storage: Storage, study: str, recorder: Recorder, hand_over: HandOver | None) -> None:
        self._storage, self._study, self._recorder, self._hand_over = storage, study, recorder, hand_over
        self._put_off: dict[int, Intervention] = {}
        self._looked_at = 0.0

    def look(self) -> list[Intervention]:
        """Return the requests that wait for an answer; none right after a look, and while the database is away."""
        now = time.monotonic()
        if self._hand_over is None or now - self._looked_at < _LOOK_S or self._recorder.notice:
            return []
        self._looked_at = now
        try:
            return self._storage.sessions.asked_of(self._study, "take")
        except StorageUnreachable:
            return []  # the recorder says so, and whoever asked waits

    def put_off(self, request: Intervention) -> None:
        """Keep a request until the slice ends in which its trial is trained: of two, the one that came first."""
        self._put_off.setdefault(request.number, request)

    def take_up(self, number: int) -> Intervention | None:
        """Return the request for a trial that was put off, if there is one."""
        return self._put_off.pop(number, None)

    def refuse(self, request: Intervention, why: str) -> None:
        """Answer that nothing comes of it."""
        self._recorder.flush()
        answer = replace(request, status=Status.REJECTED, message=why, applied_at=datetime.now(UTC))
        try:
            self._storage.sessions.answer(answer, None)
        except StorageUnreachable:
            return

    def give(self, trial: Trial, state: State | None, request: Intervention) -> Handed:
        """Hand a trial over as it stands, unless nobody waits for it any more."""
        assert self._hand_over is not None
        if is_dead(str(request.arguments.get("holder"))):
            self.refuse(request, "whoever asked for it has ended")
            return Handed.KEPT
        self._recorder.flush()
        if self._recorder.notice:
            return Handed.KEPT  # what was reported so far is to be there before it changes hands
        message = f"taken from its sweep after epoch {trial.epoch}"
        answer = replace(
            request, status=Status.APPLIED, message=message, epoch=trial.epoch, applied_at=datetime.now(UTC)
        )
        try:
            self._hand_over(trial, state, answer)
        except PandaBusy:
            return Handed.KEPT  # the request was withdrawn
        except CheckpointError as error:  # a full disk is no reason to end
            self.refuse(request, str(error))
            return Handed.KEPT
        except StorageUnreachable:
            return Handed.UNKNOWN
        return Handed.GIVEN

    def is_given(self, number: int) -> bool | None:
        """Return whether a trial has been handed over; None where the database does not say now."""
        if self._recorder.notice:
            return None
        try:
            return self._storage.sessions.get(self._study, number) is not None
        except StorageUnreachable:
            return None
