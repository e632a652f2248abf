"""What people and rules may ask of a babysat model: each verb checks a request and says what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from caviar.errors import CheckpointError, RequestRejected
from caviar.panda.course import settings_of
from caviar.panda.found import found_branch
from caviar.panda.shelf import pinned
from caviar.records import Intervention, StoredCheckpoint, Trial
from caviar.training.checkpoint import Checkpoint
from caviar.training.state import State
from caviar.wording import command

if TYPE_CHECKING:
    from caviar.panda.live import LiveRun

#: Epochs that a message lists at most.
_LISTED = 12
#: What the record of a rollback says of where it went; params of users' own models may have these names.
_PLACE_NAMES = ("epoch", "batch", "step")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a verb does, before it is done."""

    #: One line, for people.
    message: str
    #: The request's, with types put right.
    arguments: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    #: The state to go on from, and its checkpoint, where that is another than now.
    state: State | None = None
    target: StoredCheckpoint | None = None
    #: Checkpoints that are needed from now on, with their pins.
    pinned: tuple[StoredCheckpoint, ...] = ()


Verb = Callable[["LiveRun", Intervention], Outcome]


def _set(run: LiveRun, asked: Intervention) -> Outcome:
    done = run.epoch + bool(run.state.batch)
    after = run.adjustable.check(asked.arguments, epochs_done=done)
    run.try_params(run.state, after)
    before = run.values(after)
    notes = []
    if "batch_size" in after and run.state.batch:
        notes.append(f"batch_size from epoch {run.epoch + 2} on")
    if run.spec.trainable is None and "momentum" in after and run.params["optimizer"] != "momentum":
        notes.append(f"momentum is not used by {run.params['optimizer']}")
    changes = describe_changes(before, after)
    return Outcome(
        message="; ".join([changes, *notes]),
        arguments=after,
        before=before,
        after=after,
        pinned=_needed(run, "intervention"),
    )


def _pause(run: LiveRun, asked: Intervention) -> Outcome:
    return Outcome(message="was paused already" if run.is_paused else "paused")


def _resume(run: LiveRun, asked: Intervention) -> Outcome:
    return Outcome(message="goes on" if run.is_paused else "was not paused")


def _checkpoint(run: LiveRun, asked: Intervention) -> Outcome:
    run.keep("asked")
    return Outcome(message=f"kept epoch {run.epoch}, step {run.state.step}")


def _stop(run: LiveRun, asked: Intervention) -> Outcome:
    rest = "; the mini-batches since then are in its last checkpoint" if run.state.batch else ""
    return Outcome(message=f"stopped after epoch {run.epoch}{rest}")


def _rollback(run: LiveRun, asked: Intervention) -> Outcome:
    target, loaded, warning = _target(run, asked.arguments)
    rest = settings_of(asked.arguments)
    settings = run.adjustable.check(rest, epochs_done=target.epoch) if rest else {}
    unclear = [name for name in settings if name in _PLACE_NAMES]
    if unclear:
        raise RequestRejected(f"a rollback has {' and '.join(unclear)} of its own; set that once it has gone back")
    run.try_params(loaded.state, settings)
    here, before = run.state, run.values(settings)
    message = f"back from epoch {here.epoch}, step {here.step} to epoch {target.epoch}, step {target.step}"
    message += note_on_best(asked.arguments, run.best_epoch, target, run.checkpoints)
    if settings:
        message += f"; {describe_changes(before, settings)}"
    best = [c for c in run.checkpoints if c.epoch == run.best_epoch and c.epoch > target.epoch and not c.batch]
    if best:
        message += f"; epoch {run.best_epoch}, the best so far, is left behind: `branch --epoch` still reaches it"
    return Outcome(
        message=message + warning,
        arguments={**asked.arguments, **settings},
        before={**before, "epoch": here.epoch, "batch": here.batch, "step": here.step},
        after={**settings, "epoch": target.epoch, "batch": target.batch, "step": target.step},
        state=loaded.state,
        target=target,
        pinned=_all_pinned(
            pinned(target, "rollback"),
            *_needed(run, "intervention", but=target),
            *(pinned(c, "best") for c in best),
        ),
    )


def _branch(run: LiveRun, asked: Intervention) -> Outcome:
    left_behind = [c for c in run.scribe.checkpoints if c.abandoned]
    target, loaded, warning = _target(run, asked.arguments, left_behind)
    rest = settings_of(asked.arguments)
    run.try_params(loaded.state, run.adjustable.check(rest, epochs_done=target.epoch) if rest else {}, loaded.params)
    trial = found_branch(
        run.storage,
        run.spec,
        run.root,
        run.trial,
        target,
        loaded,
        asked,
        epochs=run.course.epochs,
    )
    note = note_on_best(asked.arguments, run.best_epoch, target, run.checkpoints)
    return Outcome(
        message=describe_branch(trial, target, note + warning),
        arguments=asked.arguments,
        after={"number": trial.number, "epoch": target.epoch},
        pinned=(pinned(target, "branch"),),
    )


#: Every request that a running panda understands.
VERBS: Mapping[str, Verb] = {
    "set": _set,
    "pause": _pause,
    "resume": _resume,
    "checkpoint": _checkpoint,
    "rollback": _rollback,
    "branch": _branch,
    "stop": _stop,
}


def describe_branch(made: Trial, target: StoredCheckpoint, notes: str) -> str:
    """Return what became of the request for a branch, and how to train it."""
    return f"{made.name} goes on from epoch {target.epoch}: {command('panda', 'start', made.name)}{notes}"


def describe_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return `learning_rate 0.01 -> 0.003, l2 0 -> 0.1`."""
    return ", ".join(f"{name} {_shown(before[name])} -> {_shown(value)}" for name, value in after.items())


def choose_checkpoints(
    checkpoints: Sequence[StoredCheckpoint],
    arguments: Mapping[str, Any],
    epoch: int,
    best: int | None,
    left_behind: Sequence[StoredCheckpoint] = (),
) -> list[StoredCheckpoint]:
    """Return the checkpoints that a request may mean, the likeliest first.

    Args:
        checkpoints: on the timeline in force, oldest first.
        arguments: of the request: `to` (`epoch`, `back` or `best`) and `at`.
        epoch: epochs completed now.
        best: the epoch with the best value so far.
        left_behind: those that a rollback went behind; they can be named by their epoch.

    Raises:
        RequestRejected: there is none; the message lists those there are.
    """
    to, at = arguments.get("to"), arguments.get("at")
    if to in ("epoch", "back") and (isinstance(at, bool) or not isinstance(at, int) or at < 0):
        raise RequestRejected(f"epochs are counted by whole numbers from 0, found {at!r}")
    ends = [c for c in checkpoints if not c.batch]
    there_are = _listed([c.epoch for c in ends])
    if to == "best":
        if best is None:  # none has been completed: where it started is the best there is
            return ends[::-1]
        exact = [c for c in ends if c.epoch == best]
        return exact + [c for c in reversed(ends) if c.epoch < best]
    if to not in ("epoch", "back"):
        raise RequestRejected("name one checkpoint: --epoch E, --epochs K (so many epochs ago) or --best")
    assert isinstance(at, int)
    wanted = at if to == "epoch" else epoch - at
    found = [c for c in reversed(ends) if c.epoch == wanted]
    if not found and to == "epoch":  # within that epoch, or on a timeline that was left
        found = [c for c in (*left_behind, *checkpoints) if c.epoch == wanted][::-1]
    if not found:
        missing = f"of epoch {wanted}" if wanted >= 0 else f"of {at} epochs ago: {epoch} are completed"
        raise RequestRejected(f"there is no checkpoint {missing} (there are: {there_are})")
    return found if to == "epoch" else found + [c for c in reversed(ends) if c.epoch < wanted]


def _target(
    run: LiveRun, arguments: Mapping[str, Any], left_behind: Sequence[StoredCheckpoint] = ()
) -> tuple[StoredCheckpoint, Checkpoint, str]:
    """Return the checkpoint that a request means, what it holds, and a warning where it is not the first choice."""
    warning = ""
    for checkpoint in choose_checkpoints(run.checkpoints, arguments, run.epoch, run.best_epoch, left_behind):
        try:
            return checkpoint, run.shelf.load(checkpoint), warning
        except CheckpointError as error:
            warning += f"; WARNING: {error}"
    raise RequestRejected(f"no checkpoint can be read{warning}")


def note_on_best(
    arguments: Mapping[str, Any], best: int | None, target: StoredCheckpoint, checkpoints: Sequence[StoredCheckpoint]
) -> str:
    """Return a note where the best epoch is meant, and another is the nearest that there is a checkpoint of."""
    if arguments.get("to") != "best" or best in (None, target.epoch):
        return ""
    if any(c.epoch == best and not c.batch for c in checkpoints):  # which cannot be read, as is told
        return ""
    return f"; the best epoch, {best}, has no checkpoint"


def _needed(run: LiveRun, pin: str, but: StoredCheckpoint | None = None) -> tuple[StoredCheckpoint, ...]:
    """Return the last checkpoint before now, from which a comparison without this intervention starts."""
    last = run.checkpoints[-1:]
    return tuple(pinned(c, pin) for c in last if but is None or c.path != but.path)


def _all_pinned(*checkpoints: StoredCheckpoint) -> tuple[StoredCheckpoint, ...]:
    """Return each checkpoint once, with all its pins."""
    found: dict[str, StoredCheckpoint] = {}
    for checkpoint in checkpoints:
        earlier = found.get(checkpoint.path)
        for pin in earlier.pins if earlier else ():
            checkpoint = pinned(checkpoint, pin)
        found[checkpoint.path] = checkpoint
    return tuple(found.values())


def _listed(epochs: list[int]) -> str:
    if not epochs:
        return "none yet"
    shown = [str(epoch) for epoch in epochs]
    if len(shown) > _LISTED:
        shown = [*shown[:3], "...", *shown[3 - _LISTED :]]
    return ", ".join(shown)


def _shown(value: Any) -> str:
    if value is None:
        return "until stopped"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
