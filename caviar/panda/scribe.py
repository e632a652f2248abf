"""Writing while training goes on: checkpoints to the disk, reports to the database, and the lease kept alive."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from caviar.errors import CheckpointError, PandaBusy, StorageUnreachable
from caviar.panda.shelf import Policy, Shelf
from caviar.records import Intervention, Params, StoredCheckpoint, TrialResult
from caviar.storage import Storage
from caviar.training.state import State

LEASE_S = 15.0
_RENEW_S = LEASE_S / 3
#: How long a database may be away, and how often it is asked meanwhile.
_PATIENCE_S = 120.0
_RETRY_S = 0.5
#: States that wait to be written; where the disk is slower than training, training waits for it.
_WAITING_STATES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What is to be written about one moment of training."""

    result: TrialResult
    #: To be kept as a checkpoint, where given.
    state: State | None = None
    params: Params | None = None
    segment: int = 0
    sequence: int = 0
    pins: tuple[str, ...] = ()
    #: Epoch with the best value so far, whose checkpoint is kept.
    best_epoch: int | None = None
    answered: tuple[Intervention, ...] = ()


class Scribe:
    """Writes entries in order, on a thread of its own.

    Promises: a file is whole on the disk before the database knows of it, and is removed only after the database has
    forgotten it. A checkpoint that cannot be written is told to `on_trouble`, and the rest of its entry is written all
    the same. A database that does not answer is told too, and waited for. Any other error ends the thread, and is
    raised by the next call.

    Args:
        storage: the trial database.
        trial: (study, number).
        owner: of the session's lease, which the thread renews.
        shelf: where the checkpoints lie.
        policy: which are kept.
        checkpoints: those there are.
        on_trouble: called, from the thread, with what people should know.
    """

    def __init__(
        self,
        storage: Storage,
        trial: tuple[str, int],
        owner: str,
        shelf: Shelf,
        policy: Policy,
        checkpoints: list[StoredCheckpoint],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._sessions, self._trial, self._owner = storage.sessions, trial, owner
        self._shelf, self._policy, self._on_trouble = shelf, policy, on_trouble
        #: Oldest first; changed by this thread, or by the other one while this one has nothing to do.
        self.checkpoints = checkpoints
        self._queue: queue.Queue[Entry | None] = queue.Queue(_WAITING_STATES)
        #: What was written last.
        self._saved: StoredCheckpoint | None = None
        #: Why the last checkpoint that could not be written was not.
        self.trouble: str | None = None
        self._error: BaseException | None = None
        self._renewed_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"scribe of {trial[0]}/{trial[1]}", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Take an entry; returns at once, but for a disk that is slower than training."""
        self.check()
        self._queue.put(entry)

    def flush(self) -> None:
        """Return when all entries are written."""
        self._queue.join()
        self.check()

    def check(self) -> None:
        """Raise the error that ended the thread, if one did."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Write what waits and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                entry = self._queue.get(timeout=max(self._renewed_at + _RENEW_S - time.monotonic(), 0.01))
            except queue.Empty:
                self._guarded(self._renew)
                continue
            try:
                if entry is None:
                    return
                self._guarded(partial(self._write, entry))
            finally:
                self._queue.task_done()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do some work, unless an error came before: then only take what comes, so that nobody waits for ever."""
        if self._error is not None:
            self._renewed_at = time.monotonic()
            return
        try:
            self._patiently(work)
        except BaseException as error:  # noqa: BLE001 - raised by the next call of the other thread
            self._error = error

    def _patiently(self, work: Callable[[], None]) -> None:
        """Do some work, again and again for a while where the database does not answer."""
        deadline = None
        while True:
            try:
                work()
            except StorageUnreachable as error:
                now = time.monotonic()
                if deadline is None:
                    deadline = now + _PATIENCE_S
                    self._on_trouble(f"{error}; training goes on, what it brings is written when the database answers")
                if now >= deadline:
                    raise
                time.sleep(_RETRY_S)
            else:
                if deadline is not None:
                    self._on_trouble("the database answers again")
                return

    def _renew(self) -> None:
        self._sessions.renew(*self._trial, self._owner, LEASE_S)
        self._renewed_at = time.monotonic()

    def _write(self, entry: Entry) -> None:
        if time.monotonic() - self._renewed_at >= _RENEW_S:
            self._renew()
        checkpoint = self._save(entry)
        kept, replaced = self.checkpoints, []
        if checkpoint is not None:
            # the same place of the same timeline again, as after a crash, is the same state
            replaced = [c for c in kept if _place(c) == _place(checkpoint)]
            pins = (pin for c in (*replaced, checkpoint) for pin in c.pins)
            checkpoint = replace(checkpoint, pins=tuple(dict.fromkeys(pins)))
            kept = [*(c for c in kept if c not in replaced), checkpoint]
            replaced = [c for c in replaced if c.path != checkpoint.path]
        forgotten = [*replaced, *self._policy.superfluous(kept, entry.best_epoch)]
        try:
            written = self._sessions.write(
                entry.result, self._owner, checkpoint=checkpoint, forgotten=forgotten, answered=entry.answered
            )
        except PandaBusy:
            if checkpoint is not None and all(c.path != checkpoint.path for c in self.checkpoints):
                self._shelf.remove([checkpoint])  # whoever has the lease now does not know it
            raise
        gone = {c.path for c in forgotten}
        if written is not None:
            kept[-1] = written
        self.checkpoints[:] = [c for c in kept if c.path not in gone]
        self._shelf.remove(forgotten)

    def _save(self, entry: Entry) -> StoredCheckpoint | None:
        """Write an entry's state to a file, unless the last one holds it already."""
        if entry.state is None or entry.params is None:
            return None
        last = self._saved
        here = (entry.segment, entry.state.epoch, entry.state.batch, entry.sequence)
        if last is not None and (*_place(last), last.sequence) == here:
            return replace(last, pins=entry.pins)
        try:
            self._saved = self._shelf.save(
                entry.state, entry.params, segment=entry.segment, sequence=entry.sequence, pins=entry.pins
            )
        except CheckpointError as error:
            self.trouble = str(error)
            self._on_trouble(f"{error}; training goes on without this checkpoint")
            return None
        return self._saved


def _place(checkpoint: StoredCheckpoint) -> tuple[int, int, int]:
    return checkpoint.segment, checkpoint.epoch, checkpoint.batch
