"""The worker processes on a cluster: how many there are, what each is at, and what to do when one is gone.

Ray would send a lost task to another node by itself, but waits minutes for one that went without a word. Here the crew
asks once a second which nodes are alive, and gives the slices of the others to whoever is left.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from caviar.errors import ExecutorError, SliceLost
from caviar.execution.base import Job, Runner, Slice, TrialOutcome
from caviar.training.dataset import Dataset

#: A slice whose worker died is tried so many times more, before its trials are tried alone.
_RETRIES = 2
#: Slices of one worker: one that it trains, one that waits for it, so that it never waits.
_SLICES_EACH = 2
#: Of more workers it is not looked which of them is free first: that is asked for each slice, of a thousand workers.
_COMPARED = 64
#: Workers that are asked for before the coordinator looks up again.
_HIRED_AT_ONCE = 256
#: Nodes that joined or left are noticed after so long.
_WATCH_INTERVAL_S = 1.0
#: A head that is silent for so long is gone. Ray itself would end this process after a minute.
_SILENCE_S = 20.0
#: When so many workers in a row did not even start, none would.
_MAX_FAILED_STARTS = 6


class RayJob(Job):
    """A slice on its way through Ray."""

    def __init__(self, slice: Slice) -> None:
        self.slice = slice
        self.is_done = False
        self.n_lost = 0
        self.outcomes: list[TrialOutcome] = []
        self.failure: ExecutorError | None = None
        self._submitted_at = self.sent_at = time.monotonic()

    def result(self) -> list[TrialOutcome]:
        """See :meth:`Job.result`."""
        if self.failure is not None:
            raise self.failure
        return self.outcomes

    def end(self, outcomes: Sequence[TrialOutcome] = (), failure: ExecutorError | None = None) -> None:
        """Take what became of it."""
        self.outcomes, self.failure, self.is_done = list(outcomes), failure, True

    def begun_at(self, free_since: float) -> float:
        """Return when a worker began with it that was free since then."""
        return max(free_since, self.sent_at)

    def reckon(self, free_since: float) -> float:
        """Note how long it waited and was worked on by a worker that was free since then; return the time now."""
        now, begun_at = time.monotonic(), self.begun_at(free_since)
        self.queued_s, self.worked_s = begun_at - self._submitted_at, now - begun_at
        return now


class _Actor:
    """What a worker process does."""

    def __init__(self, run: Runner) -> None:
        self._run = run
        self._data: Dataset | None = None

    def load(self, data: Dataset | None) -> str:
        """Take the data, of which the node has one copy, and say on which node this is."""
        import ray

        self._data = data
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def train(self, slice: Slice) -> list[TrialOutcome]:
        return self._run(slice, self._data)


class _Worker:
    """A worker process as seen from here."""

    def __init__(self, actor: Any, data: Any) -> None:
        self.actor = actor
        #: Not ready before this is done: it waits for a core, starts, or fetches the data.
        self.starting: Any = actor.load.remote(data)
        self.node: str | None = None
        #: In the order in which it trains them.
        self.jobs: dict[Any, RayJob] = {}
        self.free_since = 0.0

    @property
    def backlog_s(self) -> float:
        """Seconds until it is thought to be done with its slices."""
        if not self.jobs:
            return 0.0
        first, *others = self.jobs.values()
        left = first.begun_at(self.free_since) + first.slice.expected_s - time.monotonic()
        return max(left, 0.0) + sum(job.slice.expected_s for job in others)


class Crew:
    """As many workers as the cluster has cores, or fewer where that is asked for; Ray spreads them over the nodes."""

    def __init__(self, run: Runner, n_fixed: int | None) -> None:
        import ray

        self._run = run
        self._n_fixed = n_fixed
        self._data: Any = None
        self._make = ray.remote(_Actor).options(num_cpus=1, scheduling_strategy="SPREAD")
        self._workers: list[_Worker] = []
        # those that can train, by how many slices they have, in the order in which they came to have so many
        self._having: tuple[dict[_Worker, None], ...] = tuple({} for _ in range(_SLICES_EACH + 1))
        self._at: dict[Any, _Worker] = {}  # whose each result is
        self._nodes: frozenset[str] = frozenset()  # when it was last looked whose is gone
        self._queue: deque[RayJob] = deque()
        self._failed_starts = 0
        self._watch = _Watch()

    @property
    def n_workers(self) -> int:
        """Workers that can train; before the first of them can, those that are to be."""
        return self._n_ready or max(self._n_wanted, 1)

    @property
    def is_ready(self) -> bool:
        """Whether a worker can train."""
        return self._n_ready > 0

    @property
    def _n_ready(self) -> int:
        return sum(map(len, self._having))

    @property
    def _n_wanted(self) -> int:
        return self._watch.n_cores if self._n_fixed is None else min(self._n_fixed, self._watch.n_cores)

    @property
    def backlog_s(self) -> float:
        """Seconds that a slice is thought to wait for its worker, if it is submitted now."""
        worker = self._free_first()
        if worker is not None:
            return worker.backlog_s
        busy = itertools.islice(self._having[_SLICES_EACH], _COMPARED)
        return min((worker.backlog_s for worker in busy), default=0.0)

    def load(self, data: Any) -> None:
        """Give the data to all workers, those to come included."""
        self._data = data
        for worker in self._workers:
            worker.node, worker.starting = None, worker.actor.load.remote(data)
            self._move(worker, None)
        self._hire()

    def submit(self, slice: Slice) -> RayJob:
        """Queue a slice."""
        job = RayJob(slice)
        self._queue.append(job)
        self._dispatch()
        return job

    def advance(self, timeout_s: float) -> None:
        """Let at most so much time pass until something happens, and act on it.

        Raises:
            ExecutorError: workers cannot start, or the cluster is gone.
        """
        import ray

        self._drop_lost_nodes()
        self._hire()
        self._dispatch()
        starting = {worker.starting: worker for worker in self._workers if worker.starting is not None}
        refs = [*starting, *self._at]
        if not refs:
            time.sleep(min(timeout_s, _WATCH_INTERVAL_S))
            return
        done, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        if done:  # and whatever else is done by now
            done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in done:
            if ref in starting and starting[ref] in self._workers:
                self._end_start(starting[ref])
            elif ref in self._at:  # else it was lost with its worker a moment ago
                self._end_slice(self._at.pop(ref), ref)
        self._dispatch()

    def close(self) -> None:
        """Forget all workers; they end when Ray is left."""
        self._watch.stop()
        for worker in self._workers:
            self._move(worker, None)
        self._workers.clear()
        self._at.clear()

    def _hire(self) -> None:
        if self._data is None:
            return
        for _ in range(min(self._n_wanted - len(self._workers), _HIRED_AT_ONCE)):
            self._workers.append(_Worker(self._make.remote(self._run), self._data))

    def _dispatch(self) -> None:
        """Give the queue to ready workers, to each one slice before any gets a second."""
        while self._queue and (worker := self._free_first()) is not None:
            job = self._queue.popleft()
            job.sent_at = time.monotonic()
            ref = worker.actor.train.remote(job.slice)
            worker.jobs[ref], self._at[ref] = job, worker
            self._move(worker, len(worker.jobs))

    def _free_first(self) -> _Worker | None:
        """Return the worker that a slice is given to: one that has none, else of those with room the one free first."""
        idle, *with_room = self._having[:_SLICES_EACH]
        if idle:
            return next(iter(idle))
        some = itertools.islice(itertools.chain(*with_room), _COMPARED)
        return min(some, key=lambda worker: worker.backlog_s, default=None)

    def _move(self, worker: _Worker, n_slices: int | None) -> None:
        """Note how many slices a worker has; None where it is gone, or has no data yet."""
        for group in self._having:
            group.pop(worker, None)
        if n_slices is not None and worker.node is not None:
            self._having[n_slices][worker] = None

    def _end_start(self, worker: _Worker) -> None:
        import ray

        try:
            node: str = ray.get(worker.starting)
        except ray.exceptions.RayError as error:
            self._failed_starts += 1
            if isinstance(error, ray.exceptions.RayTaskError | ray.exceptions.RuntimeEnvSetupError) or (
                self._failed_starts >= _MAX_FAILED_STARTS
            ):
                raise ExecutorError(
                    f"a worker could not start: {_last_line(error)}; `caviar doctor` with the same address says what "
                    "each node lacks"
                ) from error
            self._lose(worker)
            return
        self._failed_starts = 0
        worker.node, worker.starting, worker.free_since = node, None, time.monotonic()
        self._move(worker, len(worker.jobs))

    def _end_slice(self, worker: _Worker, ref: Any) -> None:
        import ray

        try:
            outcomes: list[TrialOutcome] = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            job = worker.jobs.pop(ref)
            job.end(failure=ExecutorError(f"a worker could not train a slice: {_last_line(error)}"))
            self._move(worker, len(worker.jobs))
        except ray.exceptions.RayError:
            self._lose(worker)
        else:
            job = worker.jobs.pop(ref)
            worker.free_since = job.reckon(worker.free_since)
            job.end(outcomes)
            self._move(worker, len(worker.jobs))

    def _drop_lost_nodes(self) -> None:
        self._watch.check()
        if self._watch.nodes is self._nodes:
            return
        self._nodes = self._watch.nodes
        for worker in list(self._workers):
            if worker.node is not None and worker.node not in self._nodes:
                self._lose(worker)

    def _lose(self, worker: _Worker) -> None:
        """Take a dead worker's slices back: one of them may have killed it, which it was at."""
        self._workers.remove(worker)
        self._move(worker, None)
        for ref in worker.jobs:
            self._at.pop(ref, None)
        jobs = list(worker.jobs.values())
        worker.jobs.clear()
        if jobs:
            jobs[0].n_lost += 1
        for job in reversed(jobs):
            if job.n_lost > _RETRIES:
                n_trials = len(job.slice.tasks)
                job.end(failure=SliceLost(f"a worker died {job.n_lost} times while it trained {n_trials} trials"))
            else:
                self._queue.appendleft(job)


class _Watch:
    """Which nodes are alive and how many cores they have, asked in a thread of its own: a dead head answers late."""

    def __init__(self) -> None:
        self.nodes: frozenset[str] = frozenset()
        self.n_cores = 0
        self._heard_at = time.monotonic()
        self._stopped = threading.Event()
        self._ask()
        threading.Thread(target=self._run, daemon=True).start()

    def check(self) -> None:
        """Raise where the head has been silent for too long.

        Raises:
            ExecutorError: it has.
        """
        if time.monotonic() - self._heard_at > _SILENCE_S:
            raise ExecutorError(
                f"the head of the Ray cluster has been silent for {_SILENCE_S:g} s; run the same command again when it "
                "is back"
            )

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(_WATCH_INTERVAL_S):
            try:
                self._ask()
            except Exception:  # noqa: BLE001 - check() tells, if it goes on
                continue

    def _ask(self) -> None:
        import ray

        alive = [node for node in ray.nodes() if node["Alive"]]
        self.nodes = frozenset(node["NodeID"] for node in alive)
        self.n_cores = sum(int(node["Resources"].get("CPU", 0)) for node in alive)
        self._heard_at = time.monotonic()


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
