"""Asking a babysat model from another process: is it there, what is asked of it, and what became of that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from caviar.errors import NoAnswer, PandaNotRunning
from caviar.panda.course import STEERING, place_after
from caviar.records import Intervention, Session, Status, StoredCheckpoint, Trial
from caviar.storage import Storage
from caviar.storage.holder import is_dead
from caviar.wording import command

_POLL_S = 0.02
#: Seconds between two looks at whether the other process still lives.
_LOOK_S = 0.5


def is_running(session: Session) -> bool:
    """Return whether a process trains a babysat trial now, as far as this can be known from here."""
    if session.owner is None or session.expires_at is None:
        return False
    return session.expires_at > datetime.now(UTC) and not is_dead(session.owner)


def is_paused(interventions: Sequence[Intervention]) -> bool:
    """Return whether the last of these that were applied left the model paused."""
    turns = [i.kind for i in interventions if i.status is Status.APPLIED and i.kind in ("pause", "resume")]
    return turns[-1:] == ["pause"]


def condition(trial: Trial, session: Session, interventions: Sequence[Intervention]) -> str:
    """Return how a babysat trial is: `running`, `paused`, `not running`, or the state in which it ended."""
    if trial.state.is_finished:
        return trial.state.value
    if not is_running(session):
        return "not running"
    return "paused" if is_paused(interventions) else "running"


def trains_again_to(
    trial: Trial, session: Session, interventions: Sequence[Intervention], checkpoints: Sequence[StoredCheckpoint]
) -> tuple[int, int] | None:
    """Return the epoch and step up to which a running trial repeats what is on its record; None where it does not.

    Begun again from an older checkpoint, it answers nothing until it has met the last intervention that was applied.
    """
    met = [i for i in interventions if i.status is Status.APPLIED and i.kind in (*STEERING, "stop")]
    if not met or trial.state.is_finished:
        return None
    last = met[-1]
    epoch, batch = place_after(last)
    if epoch > trial.epoch:
        is_behind = True
    elif epoch < trial.epoch or not batch or last.applied_at is None or session.acquired_at is None:
        is_behind = False
    else:  # within an epoch: one of another process is ahead until a checkpoint there says that it was met
        is_kept = any((c.epoch, c.batch) >= (epoch, batch) for c in checkpoints if not c.abandoned)
        is_behind = last.applied_at < session.acquired_at and not is_kept
    if not is_behind:
        return None
    step = (last.after or {})["step"] if last.kind == "rollback" else last.step
    return epoch, step or 0


def ask(storage: Storage, asked: Intervention, *, timeout_s: float) -> Intervention:
    """Ask a running model for something, and wait until it has answered.

    A request whose token was used before is not made again: what became of that one is waited for and returned.

    Args:
        storage: the trial database.
        asked: the request; its `trial` and `token` name it.
        timeout_s: wait no longer.

    Returns:
        The request as it was answered, applied or rejected.

    Raises:
        TrialNotFound: there is no such trial.
        RequestRejected: the token was used for another request.
        PandaNotRunning: nobody trains it, and nothing was asked; or it died while we waited.
        NoAnswer: it did not answer in time; the request stays.
    """
    name = asked.study, asked.number
    if storage.sessions.intervention(*name, asked.token) is None:
        check_running(storage.get_trial(*name), storage.sessions.get(*name), asked.kind)
    found = storage.sessions.ask(asked)
    begun = looked = time.monotonic()
    while found.status is Status.ASKED:
        now = time.monotonic()
        if now - looked >= _LOOK_S:
            looked = now
            ended = _look(storage, name, found)
            if ended is not None:
                return ended
        if now - begun >= timeout_s:
            again = _trains_again_to(storage, name)
            why = ""
            if again is not None:
                place = f"epoch {again[0]}, step {again[1]}"
                why = f" it trains again up to {place}, where its record ends, and answers then;"
            raise NoAnswer(
                f"{asked.trial} has not answered within {timeout_s:g} s;{why} the request waits: give --id "
                f"{asked.token} to ask what became of it"
            )
        time.sleep(_POLL_S)
        found = storage.sessions.intervention(*name, asked.token) or found
    return found


def check_running(trial: Trial, session: Session | None, kind: str) -> None:
    """Check that somebody is there to answer.

    Raises:
        PandaNotRunning: the message says why, and how to start it.
    """
    start = command("panda", "start", trial.name)
    if session is None:
        raise PandaNotRunning(f"{trial.name} is not babysat, there is nobody to ask for {kind}; babysit it: {start}")
    if trial.state.is_finished:
        raise PandaNotRunning(
            f"{trial.name} is {trial.state} and stays as it is; go on from it in a new trial: {start}"
        )
    if not is_running(session):
        raise PandaNotRunning(f"{trial.name} is not running, there is nobody to ask for {kind}; go on with it: {start}")


def _trains_again_to(storage: Storage, name: tuple[str, int]) -> tuple[int, int] | None:
    trial, session = storage.get_trial(*name), storage.sessions.get(*name)
    if session is None:
        return None
    return trains_again_to(trial, session, storage.sessions.interventions(*name), storage.sessions.checkpoints(*name))


def _look(storage: Storage, name: tuple[str, int], asked: Intervention) -> Intervention | None:
    """Return what becomes of a request whose answer does not come, where that is sure; None while it may come.

    Raises:
        PandaNotRunning: the other process has died.
    """
    trial, session = storage.get_trial(*name), storage.sessions.get(*name)
    found = storage.sessions.intervention(*name, asked.token)
    if found is not None and found.status is not Status.ASKED:
        return found
    if trial.state.is_finished:  # nobody will ever look at it
        message = f"{trial.name} ended ({trial.state}) before it could answer"
        rejected = replace(asked, status=Status.REJECTED, message=message, applied_at=datetime.now(UTC))
        storage.sessions.answer(rejected, None)
        return rejected
    if session is None or not is_running(session):
        raise PandaNotRunning(
            f"{trial.name} stopped running before it answered; the request stays, and is applied when it is started "
            f"again: {command('panda', 'start', trial.name)}"
        )
    return None
