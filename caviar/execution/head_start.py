"""The executor that begins in this process while the workers of another one are still starting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from caviar.execution.base import Executor, Job, Slice, TrialOutcome
from caviar.execution.inline import InlineExecutor, InlineJob
from caviar.training.dataset import Dataset

#: Longer slices wait for the workers: this process has to answer meanwhile, and must not die of a model's size.
_LONGEST_S = 3.0
#: A Ray takes about so long to start; with less work than that left, it would come too late.
_WORTH_S = 5.0
#: The thread that makes the other executor is asked so often whether it is done.
_POLL_S = 0.05


class _Handed(Job):
    """A slice that is for the other executor, which may not be there yet."""

    def __init__(self, slice: Slice) -> None:
        self.slice = slice
        self.inner: Job | None = None

    def result(self) -> list[TrialOutcome]:
        """See :meth:`Job.result`."""
        assert self.inner is not None
        return self.inner.result()

    def finish(self) -> None:
        """Take over what the other executor noted."""
        assert self.inner is not None
        self.queued_s, self.worked_s = self.inner.queued_s, self.inner.worked_s


class HeadStart(Executor):
    """Trains short slices in this process until the other executor is ready, and hands all later ones to that.

    Promises: what comes of a slice is the same on either.

    Args:
        make: makes the other executor; called on a thread of its own.
        at_once: make it now; else once `expect` tells of so much work that it will be of use.
    """

    def __init__(self, make: Callable[[], Executor], *, at_once: bool) -> None:
        self._make = make
        self._here = InlineExecutor()
        self._data: Dataset | None = None
        self._is_loaded = False
        #: Whether the other executor has been ready: from then on all goes there, also while it has no workers.
        self._is_over = False
        self._made: Executor | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._is_made, self._is_closed = threading.Event(), threading.Event()
        #: The other executor, once it has the data.
        self._other: Executor | None = None
        self._waiting: list[_Handed] = []
        if at_once:
            self._start()

    @property
    def n_workers(self) -> int:
        """See :class:`Executor`."""
        return self._other.n_workers if self._other is not None and self._other.is_ready else 1

    @property
    def can_grow(self) -> bool:
        """See :class:`Executor`."""
        return self._thread is None

    @property
    def backlog_s(self) -> float:
        """See :class:`Executor`."""
        return self._other.backlog_s if self._other is not None and self._other.is_ready else 0.0

    def expect(self, seconds: float) -> None:
        """See :meth:`Executor.expect`."""
        if self._thread is None and seconds > _WORTH_S:
            self._start()

    def load(self, data: Dataset | None) -> None:
        """See :meth:`Executor.load`."""
        self._data, self._is_loaded = data, True
        self._here.load(data)
        if self._other is not None:
            self._other.load(data)

    def submit(self, slice: Slice) -> Job:
        """See :meth:`Executor.submit`."""
        self._look()
        self._is_over = self._is_over or (self._other is not None and self._other.is_ready)
        # what has killed workers would kill this process, and so might what a user's function does
        if not self._is_over and slice.trainable is None and slice.expected_s <= _LONGEST_S:
            return self._here.submit(slice)
        job = _Handed(slice)
        if self._other is not None:
            job.inner = self._other.submit(slice)
        else:
            self._start()
            self._waiting.append(job)
        return job

    def wait(self, jobs: Sequence[Job], timeout_s: float) -> list[Job]:
        """See :meth:`Executor.wait`."""
        self._look()
        done: list[Job] = [job for job in jobs if isinstance(job, InlineJob)]
        if done:
            timeout_s = 0.0
        if self._other is None:
            time.sleep(min(timeout_s, _POLL_S))
            return done
        handed = {job.inner: job for job in jobs if isinstance(job, _Handed) and job.inner is not None}
        for inner in self._other.wait(list(handed), timeout_s):
            handed[inner].finish()
            done.append(handed[inner])
        return done

    def close(self) -> None:
        """See :meth:`Executor.close`."""
        self._here.close()
        if self._thread is None:
            return
        self._is_made.wait()
        try:
            if self._made is not None:
                self._made.close()
        finally:
            self._is_closed.set()
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="start of the workers", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            self._made = self._make()
        except BaseException as error:  # noqa: BLE001 - raised by the next call of the thread that uses this
            self._error = error
        self._is_made.set()
        # processes may be told to end with their parent, and Linux takes the thread that started them for that
        self._is_closed.wait()

    def _look(self) -> None:
        """Take the other executor into use, once it is made.

        Raises:
            ExecutorError: it could not be.
        """
        if self._error is not None:
            raise self._error
        if self._other is None and self._is_made.is_set() and self._made is not None and self._is_loaded:
            self._other = self._made
            self._other.load(self._data)
            for job in self._waiting:
                job.inner = self._other.submit(job.slice)
            self._waiting.clear()
        if self._other is not None and not self._other.is_ready:
            self._other.wait([], 0.0)
