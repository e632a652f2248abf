"""Caviar mode: the loop that keeps all workers busy with slices until the study holds its trials."""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from caviar.errors import ExecutorError, SliceLost, SweepBroken
from caviar.execution.base import Executor, Job, Slice, TrialOutcome, TrialTask
from caviar.execution.planner import Planner
from caviar.records import Direction, Reason, StudySpec, Trial, TrialResult, TrialState
from caviar.search.sampler import TrialSampler
from caviar.space import SearchSpace
from caviar.storage.base import Storage
from caviar.training.dataset import Dataset

#: Trials sampled and added to the database at a time: memory stays flat however many there are to be.
_BLOCK = 1024
#: Slices submitted for each worker: one that trains and one that waits, so that no worker does.
_SLICES_PER_WORKER = 2
#: A result is in the database after so long at the latest.
_FLUSH_INTERVAL_S = 0.5
_FLUSH_TRIALS = 1000
_POLL_S = 0.2
_LEASE_S = 30.0
#: When so many trials have ended and all failed with the same error, the rest would too.
_BREAKER_TRIALS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepProgress:
    """Where a sweep stands."""

    study: str
    #: Trials that the study is to hold.
    n_trials: int
    n_complete: int
    n_failed: int
    n_running: int
    #: Trials that ended in this sweep, and the seconds it has run.
    n_ended_now: int
    seconds: float
    n_workers: int
    best: Trial | None
    #: Where `n_ended_now` is more than a few: seconds until the end.
    seconds_left: float | None

    @property
    def trials_per_second(self) -> float:
        """Trials that ended, per second of this sweep."""
        return self.n_ended_now / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepResult:
    """How a sweep ended."""

    progress: SweepProgress
    interrupted: bool


def sweep(
    storage: Storage,
    spec: StudySpec,
    data: Dataset,
    executor: Executor,
    n_trials: int,
    *,
    on_progress: Callable[[SweepProgress], None] = lambda progress: None,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> SweepResult:
    """Train until the study holds `n_trials` trials, all of them ended.

    Trials that an earlier sweep left unfinished are trained first. The best trial is trained once more at the end, to
    the same bits, and judged on the test part.

    Args:
        storage: the trial database.
        spec: of a study that is in it.
        data: what the spec names, loaded.
        executor: where to train; the data is loaded onto it.
        n_trials: trials of the study in all, whoever made them.
        on_progress: called a few times a second.
        is_interrupted: asked as often; once it is true the sweep ends after writing what it has.

    Raises:
        StudyBusy: another coordinator sweeps this study.
        SweepBroken: the first trials all failed alike.
        StorageError, ExecutorError: these failed; what was written stays, and the same sweep can go on.
    """
    return _Sweep(storage, spec, data, executor, n_trials, on_progress, is_interrupted).run()


class _Sweep:
    def __init__(
        self,
        storage: Storage,
        spec: StudySpec,
        data: Dataset,
        executor: Executor,
        n_trials: int,
        on_progress: Callable[[SweepProgress], None],
        is_interrupted: Callable[[], bool],
    ) -> None:
        self.storage, self.spec, self.data, self.executor = storage, spec, data, executor
        self.n_trials = n_trials
        self.on_progress, self.is_interrupted = on_progress, is_interrupted
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.sampler = TrialSampler(SearchSpace.from_dict(spec.space), spec.seed)
        self.planner = Planner(data)
        self.pool: list[TrialTask] = []  # cheapest first
        self.jobs: dict[Job, None] = {}
        self.results: list[TrialResult] = []
        self.flushed_at = self.leased_at = self.started_at = time.monotonic()
        self.first_errors: list[str] | None = []
        self.n_ended_now = 0

    def run(self) -> SweepResult:
        self.storage.acquire_lease(self.spec.name, self.owner, _LEASE_S)
        try:
            self._recall()
            self.executor.load(self.data)
            while not self.is_interrupted():
                self._submit()
                if not self.jobs:
                    break
                self._collect()
                self._flush_when_due()
                self.on_progress(self._progress())
            self._flush()
            interrupted = self.is_interrupted()
            if not interrupted:
                self._judge_best()
            return SweepResult(progress=self._progress(), interrupted=interrupted)
        except ExecutorError:
            self._flush()  # what the workers did give back is kept
            raise
        finally:
            self.storage.release_lease(self.spec.name, self.owner)

    def _recall(self) -> None:
        """Learn what the database holds: what is still to be trained, how many there are, the best so far."""
        counts = self.storage.summary(self.spec.name).counts
        self.counts = {state: counts.get(state, 0) for state in TrialState}
        self.best = self.storage.best_trial(self.spec.name)
        if self.counts[TrialState.COMPLETE]:
            self.first_errors = None  # these are not the study's first trials
        n_found = sum(self.counts.values())
        self.next_number = n_found
        if not n_found:
            return
        last = self.storage.trials(self.spec.name, sort="-number", limit=1)
        self.next_number = last[0].number + 1
        unfinished = self.storage.trials(self.spec.name, where="state = 'WAITING' or state = 'RUNNING'")
        # a trial with a parent belongs to panda mode
        unfinished = [trial for trial in unfinished if trial.parent is None]
        n_running = sum(trial.state is TrialState.RUNNING for trial in unfinished)
        self.counts[TrialState.RUNNING] -= n_running  # nobody trains them now: they wait, like the others
        self.counts[TrialState.WAITING] += n_running
        self._fill(unfinished)

    def _sample(self) -> None:
        """Add the next block of trials, up to the budget, to the database and to the pool."""
        n_new = min(_BLOCK, self.n_trials - sum(self.counts.values()))
        if n_new <= 0:
            return
        numbers = range(self.next_number, self.next_number + n_new)
        trials = [
            Trial(study=self.spec.name, number=n, state=TrialState.WAITING, params=self.sampler.params(n))
            for n in numbers
        ]
        self.storage.add_trials(self.spec.name, trials)
        self.counts[TrialState.WAITING] += n_new
        self.next_number += n_new
        self._fill(trials)

    def _fill(self, trials: list[Trial]) -> None:
        self.pool += [
            TrialTask(
                number=trial.number,
                params=trial.params,
                key=(self.spec.seed, trial.number),
                until=self.spec.epochs,
            )
            for trial in trials
        ]
        # of equal cost the first number goes first; take() takes from the end
        self.pool.sort(key=lambda task: (self.planner.cost(task), -task.number))

    def _submit(self) -> None:
        n_workers = self.executor.n_workers
        while len(self.jobs) < _SLICES_PER_WORKER * n_workers:
            if len(self.pool) < _BLOCK // 4:
                self._sample()
            if not self.pool:
                return
            tasks = self.planner.take(self.pool, n_workers)
            self.jobs[self.executor.submit(Slice(tasks=tasks, kernel=self.spec.kernel))] = None

    def _collect(self) -> None:
        for job in self.executor.wait(list(self.jobs), _POLL_S):
            del self.jobs[job]
            try:
                outcomes = job.result()
            except SliceLost as lost:
                self._retry_alone(job.slice, lost)
                continue
            self.planner.learn(job.slice.tasks, sum(outcome.seconds for outcome in outcomes))
            for task, outcome in zip(job.slice.tasks, outcomes, strict=True):
                self._tell(task, outcome)

    def _retry_alone(self, slice: Slice, lost: SliceLost) -> None:
        """One trial may have killed the worker: give each of the others a worker without it."""
        if len(slice.tasks) > 1:
            for task in slice.tasks:
                self.jobs[self.executor.submit(replace(slice, tasks=(task,)))] = None
            return
        task = slice.tasks[0]
        trial = Trial(
            study=self.spec.name,
            number=task.number,
            state=TrialState.FAIL,
            params=task.params,
            finished_at=datetime.now(UTC),
            reason=Reason.LOST,
            error=str(lost),
        )
        self._record(TrialResult(trial=trial))

    def _tell(self, task: TrialTask, outcome: TrialOutcome) -> None:
        metrics = outcome.reports.last
        is_complete = outcome.state is TrialState.COMPLETE
        trial = Trial(
            study=self.spec.name,
            number=task.number,
            state=outcome.state,
            params=task.params,
            value=metrics.get(self.spec.metric) if is_complete else None,
            metrics=metrics,
            epoch=outcome.epoch,
            seconds=outcome.seconds,
            started_at=outcome.started_at,
            finished_at=outcome.finished_at,
            reason=outcome.reason,
            error=outcome.error,
            traceback=outcome.traceback,
            worker=outcome.worker,
        )
        if is_complete and (self.best is None or self._rank(trial) < self._rank(self.best)):
            self.best = trial
        self._record(TrialResult(trial=trial, reports=outcome.reports))

    def _record(self, result: TrialResult) -> None:
        self.results.append(result)
        self.counts[TrialState.WAITING] -= 1
        self.counts[result.trial.state] += 1
        self.n_ended_now += 1
        self._check_breaker(result.trial)

    def _rank(self, trial: Trial) -> tuple[float, float, int]:
        """Return what orders trials, best first: value, then `val_loss`, then number."""
        assert trial.value is not None
        sign = -1 if self.spec.direction is Direction.MAXIMIZE else 1
        return sign * trial.value, trial.metrics.get("val_loss", float("inf")), trial.number

    def _check_breaker(self, trial: Trial) -> None:
        if self.first_errors is None:
            return
        if trial.state is not TrialState.FAIL:
            self.first_errors = None
            return
        self.first_errors.append(trial.error or "")
        alike = {re.sub(r"\d+", "N", error) for error in self.first_errors}
        if len(alike) > 1:
            self.first_errors = None
        elif len(self.first_errors) >= _BREAKER_TRIALS:
            self._flush()
            raise SweepBroken(
                f"the first {len(self.first_errors)} trials all failed alike ({trial.error}); see "
                f"`caviar show {trial.name}`, then mend the space or the data under another study name"
            )

    def _flush_when_due(self) -> None:
        now = time.monotonic()
        if now - self.leased_at > _LEASE_S / 3:
            self.storage.acquire_lease(self.spec.name, self.owner, _LEASE_S)
            self.leased_at = now
        if len(self.results) >= _FLUSH_TRIALS or now - self.flushed_at > _FLUSH_INTERVAL_S:
            self._flush()

    def _flush(self) -> None:
        if self.results:
            self.storage.write(self.spec.name, self.results)
            self.results = []
        self.flushed_at = time.monotonic()

    def _judge_best(self) -> None:
        """Train the best trial again, to the same bits, and judge it on the test part, once."""
        if self.best is None or "test_accuracy" in self.best.metrics:
            return
        task = TrialTask(
            number=self.best.number,
            params=self.best.params,
            key=(self.spec.seed, self.best.number),
            until=self.spec.epochs,
            final=True,
        )
        if self.best.parent is not None:
            return
        job = self.executor.submit(Slice(tasks=(task,), kernel=self.spec.kernel))
        while not self.executor.wait([job], _POLL_S):
            if self.is_interrupted():
                return
        (outcome,) = job.result()
        if outcome.test_metrics is not None:
            self.best = replace(self.best, metrics={**self.best.metrics, **outcome.test_metrics})
            self.storage.write(self.spec.name, [TrialResult(trial=self.best)])

    def _progress(self) -> SweepProgress:
        seconds = time.monotonic() - self.started_at
        n_left = max(self.n_trials - sum(self.counts.values()), 0) + self.counts[TrialState.WAITING]
        n_running = sum(len(job.slice.tasks) for job in self.jobs)
        few = self.n_ended_now < 3
        return SweepProgress(
            study=self.spec.name,
            n_trials=self.n_trials,
            n_complete=self.counts[TrialState.COMPLETE],
            n_failed=self.counts[TrialState.FAIL],
            n_running=n_running,
            n_ended_now=self.n_ended_now,
            seconds=seconds,
            n_workers=self.executor.n_workers,
            best=self.best,
            seconds_left=None if few else seconds / self.n_ended_now * n_left,
        )
