"""The one writer of a study: takes results, and brings them into the database on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from caviar.errors import StorageError, StorageUnreachable
from caviar.records import Trial, TrialResult, TrialState
from caviar.storage import Storage
from caviar.storage.spool import Spool

#: A result waits for others for so long at the most, and no transaction holds more of them.
GROUP_INTERVAL_S = 0.4
GROUP_TRIALS = 1000
#: Where this many wait in memory, more should wait elsewhere.
_QUEUE_TRIALS = 20 * GROUP_TRIALS
LEASE_S = 30.0
_RENEW_S = LEASE_S / 3
#: How often a database that does not answer is asked again.
_RETRY_S = 1.0


class Recorder:
    """Writes what becomes of the trials of a study, in grouped transactions.

    Promises:
        - While it is open it holds the study's lease, renewed from its own thread, whatever the caller does meanwhile;
          each transaction makes sure of it, so that a coordinator that has lost its lease writes nothing.
        - A result is durable within a second: in the database, or, where that does not answer, in the spool. What is in
          the spool goes into the database when it returns, in order, also if another process has to do that.
        - Trials and results are written in the order in which they came; of a group, what has ended before what is new.

    An error that ends all this (the lease is lost, the disk is full) is raised by the next call.

    Args:
        storage: the trial database.
        study: name of a study in it.
        owner: who holds the lease, see :func:`caviar.storage.holder.new_holder`.
        spool: where results wait while the database does not answer. What an earlier process left there is written
            first.

    Raises:
        StudyBusy: another holds the lease.
        StorageError: the database cannot be written.
    """

    def __init__(self, storage: Storage, study: str, owner: str, spool: Spool) -> None:
        self._storage, self._study, self.owner, self._spool = storage, study, owner, spool
        self._queue: deque[tuple[float, TrialResult]] = deque()
        #: Results that were taken from the queue and are not durable yet.
        self._n_in_hand = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._is_flushing = self._is_closing = False
        self._away_since: datetime | None = None
        #: Seconds that the database's transactions took.
        self.write_s = 0.0
        storage.acquire_lease(study, owner, LEASE_S)
        self._leased_at = time.monotonic()
        try:
            self._drain()
            self._thread = threading.Thread(target=self._run, name=f"recorder of {study}", daemon=True)
            self._thread.start()
        except BaseException:
            storage.release_lease(study, owner)
            raise

    @property
    def notice(self) -> str | None:
        """What people should know while it lasts: that the database does not answer. None where all is well."""
        since = self._away_since
        if since is None:
            return None
        full = "; the file is full, so that training waits" if self._spool.is_full else ""
        return (
            f"the database does not answer since {since:%H:%M:%S} UTC; {self._spool.n_waiting} results wait in "
            f"{str(self._spool.path)!r}{full}"
        )

    @property
    def has_room(self) -> bool:
        """Whether more may come. Where it is not, the caller should train no more for now."""
        return len(self._queue) < _QUEUE_TRIALS and not (self._away_since and self._spool.is_full)

    def add(self, trials: Sequence[Trial]) -> None:
        """Take new trials, WAITING."""
        self._put([TrialResult(trial=trial) for trial in trials])

    def record(self, result: TrialResult) -> None:
        """Take what became of a trial that was added before."""
        self._put([result])

    def check(self) -> None:
        """Raise what went wrong since the last call, if anything did."""
        if self._error is not None:
            raise self._error

    def flush(self) -> None:
        """Return when all that was taken is durable."""
        with self._changed:
            self._is_flushing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error is not None or not (self._queue or self._n_in_hand))
            self._is_flushing = False
        self.check()

    def wait_for_database(self, timeout_s: float) -> bool:
        """Return whether all is in the database, having waited for that for a while."""
        with self._changed:
            return self._changed.wait_for(
                lambda: (
                    self._error is not None
                    or not (self._queue or self._n_in_hand or self._spool.n_waiting or self._away_since)
                ),
                timeout_s,
            )

    def close(self) -> None:
        """Write what waits, or spool it, and give up the lease. Raises nothing: call `flush` before to know."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        if self._away_since is None:
            with suppress(StorageError):  # else the lease expires
                self._storage.release_lease(self._study, self.owner)

    def _put(self, results: Sequence[TrialResult]) -> None:
        self.check()
        now = time.monotonic()
        with self._changed:
            self._queue.extend((now, result) for result in results)
            if len(self._queue) >= GROUP_TRIALS or len(self._queue) == len(results):
                self._changed.notify_all()

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    if not self._is_due():
                        self._changed.wait(self._patience_s())
                    is_last = self._is_closing
                    group = self._take() if self._is_due() else []
                start = time.monotonic()
                self._step(group)
                self.write_s += time.monotonic() - start
                with self._changed:
                    self._n_in_hand = 0
                    self._changed.notify_all()
                    if is_last and not self._queue:
                        return
        except BaseException as error:  # noqa: BLE001 - raised by the next call of the thread that uses this
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _is_due(self) -> bool:
        if self._is_closing or (self._is_flushing and self._queue):
            return True
        n = len(self._queue)
        return n >= GROUP_TRIALS or (n > 0 and time.monotonic() - self._queue[0][0] >= GROUP_INTERVAL_S)

    def _patience_s(self) -> float:
        """Return after how many seconds there is something to do, if nothing happens before."""
        now = time.monotonic()
        waits = [self._leased_at + _RENEW_S - now]
        if self._queue:
            waits.append(self._queue[0][0] + GROUP_INTERVAL_S - now)
        if self._away_since:
            waits.append(_RETRY_S)
        return max(min(waits), 0.01)

    def _take(self) -> list[TrialResult]:
        """Take the next group from the queue: at most one result of each trial."""
        group: dict[int, TrialResult] = {}
        while self._queue and len(group) < GROUP_TRIALS and self._queue[0][1].trial.number not in group:
            result = self._queue.popleft()[1]
            group[result.trial.number] = result
        self._n_in_hand = len(group)
        return list(group.values())

    def _step(self, group: list[TrialResult]) -> None:
        """Make a group durable, and the lease last."""
        if self._away_since is None:
            try:
                self._renew()
                self._write(group)
                return
            except StorageUnreachable:
                self._away_since = datetime.now(UTC)
        if group:
            self._spool.append(group)
        if self._is_closing:
            return
        try:
            self._storage.prolong_lease(self._study, self.owner, LEASE_S)
            self._leased_at = time.monotonic()
            self._drain()
            self._away_since = None
        except StorageUnreachable:
            return

    def _renew(self) -> None:
        if time.monotonic() - self._leased_at >= _RENEW_S:
            self._storage.prolong_lease(self._study, self.owner, LEASE_S)
            self._leased_at = time.monotonic()

    def _write(self, group: list[TrialResult]) -> None:
        told = [result for result in group if not _is_new(result)]
        if told:
            self._storage.write(self._study, told, owner=self.owner)
        # after what has ended: a trial may be there because others have
        new = [result.trial for result in group if _is_new(result)]
        if new:
            self._storage.add_trials(self._study, new, owner=self.owner)

    def _drain(self) -> None:
        """Bring what waits in the spool into the database; parts of it may be there."""
        if not self._spool.n_waiting:
            return
        for results in self._spool.groups(GROUP_TRIALS):
            for group in _split(results):
                numbers = [result.trial.number for result in group]
                where = f"number >= {min(numbers)} and number <= {max(numbers)}"
                found = {trial.number: trial for trial in self._storage.trials(self._study, where=where)}
                self._write([result for result in group if _is_missing(result, found.get(result.trial.number))])
                self._renew()
        self._spool.clear()


def _is_new(result: TrialResult) -> bool:
    return result.trial.state is TrialState.WAITING


def _is_missing(result: TrialResult, found: Trial | None) -> bool:
    """Return whether the database lacks what a result says, given the trial that it holds."""
    if found is None or not found.state.is_finished:
        return found is None or not _is_new(result)
    # Another coordinator may have trained it meanwhile, to the same bits, or gone on from there.
    return not _is_new(result) and found.finished_at == result.trial.finished_at


def _split(results: Sequence[TrialResult]) -> Iterator[list[TrialResult]]:
    """Cut results so that no part holds two of one trial."""
    part: dict[int, TrialResult] = {}
    for result in results:
        if result.trial.number in part:
            yield list(part.values())
            part = {}
        part[result.trial.number] = result
    if part:
        yield list(part.values())
