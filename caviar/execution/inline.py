"""The executor that trains in this process: no Ray, one worker, and a debugger works."""

from __future__ import annotations

import time
from collections.abc import Sequence

from caviar.errors import ExecutorError
from caviar.execution.base import Executor, Job, Runner, Slice, TrialOutcome
from caviar.execution.worker import run_slice
from caviar.training.dataset import Dataset


class InlineJob(Job):
    """A slice that was trained when it was submitted."""

    def __init__(self, slice: Slice, outcomes: list[TrialOutcome], worked_s: float) -> None:
        self.slice = slice
        self._outcomes = outcomes
        self.worked_s = worked_s

    def result(self) -> list[TrialOutcome]:
        """See :meth:`Job.result`."""
        return self._outcomes


class InlineExecutor(Executor):
    """One worker: the process itself. `submit` returns when the slice is trained."""

    def __init__(self, run: Runner = run_slice) -> None:
        self._run = run
        self._data: Dataset | None = None
        self._is_loaded = False

    @property
    def n_workers(self) -> int:
        """See :class:`Executor`."""
        return 1

    def load(self, data: Dataset | None) -> None:
        """See :meth:`Executor.load`."""
        self._data, self._is_loaded = data, True

    def submit(self, slice: Slice) -> Job:
        """See :meth:`Executor.submit`."""
        if not self._is_loaded:
            raise ExecutorError("a slice was submitted before the data; call load() first")
        start = time.monotonic()
        outcomes = self._run(slice, self._data)
        return InlineJob(slice, outcomes, time.monotonic() - start)

    def wait(self, jobs: Sequence[Job], timeout_s: float) -> list[Job]:
        """See :meth:`Executor.wait`."""
        return list(jobs)

    def close(self) -> None:
        """See :meth:`Executor.close`."""
        self._data, self._is_loaded = None, False
