"""Where the time of a sweep goes: what workers had of it, and what became of that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from caviar.errors import StorageError
from caviar.execution.base import Job, TrialOutcome
from caviar.records import SweepRun
from caviar.storage.base import Storage

#: In the order in which they are shown. See docs/cluster.md.
ACCOUNTS = ("workers", "train", "dispatch", "idle", "queue", "write")


class Ledger:
    """Adds up seconds. `workers` is what all workers had together; `train`, `dispatch` and `idle` are its parts."""

    def __init__(self, storage: Storage, study: str, owner: str) -> None:
        self._storage, self._study = storage, study
        self._run = SweepRun(owner=owner, started_at=datetime.now(UTC))
        self._id: int | None = None
        self._workers = self._train = self._dispatch = self._queue = 0.0
        self._counted_at = time.monotonic()
        self._n_workers = 0

    def open(self) -> None:
        """Note in the database that a sweep begins."""
        self._id = self._storage.ledgers.begin(self._study, self._run.owner, self._run.started_at)
        self._counted_at = time.monotonic()

    def count_workers(self, n_workers: int) -> None:
        """Note that there have been so many workers since the last call."""
        now = time.monotonic()
        self._workers += n_workers * (now - self._counted_at)
        self._counted_at = now
        self._n_workers = max(self._n_workers, n_workers)

    def add(self, job: Job, outcomes: Sequence[TrialOutcome]) -> None:
        """Note what became of a slice."""
        seconds = sum(outcome.seconds for outcome in outcomes)
        self._train += seconds
        self._queue += job.queued_s
        self._dispatch += job.worked_s - seconds

    def close(self, n_ended: int, write_s: float) -> None:
        """Keep in the database what was noted, if it was opened. Raises nothing: the sweep itself is more important."""
        if self._id is None:
            return
        run = SweepRun(
            owner=self._run.owner,
            started_at=self._run.started_at,
            finished_at=datetime.now(UTC),
            n_workers=self._n_workers,
            n_ended=n_ended,
            ledger=self._seconds(write_s),
        )
        with suppress(StorageError):
            self._storage.ledgers.put(self._id, run)

    def _seconds(self, write_s: float) -> dict[str, float]:
        # a slice that ended between two looks was not with its worker for as long as it seems
        dispatch = min(max(self._dispatch, 0.0), max(self._workers - self._train, 0.0))
        idle = max(self._workers - self._train - dispatch, 0.0)
        values = (self._workers, self._train, dispatch, idle, self._queue, write_s)
        return {name: round(value, 3) for name, value in zip(ACCOUNTS, values, strict=True)}
