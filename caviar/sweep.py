"""Caviar mode: the loop that keeps all workers busy with slices until the study holds its trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path

from caviar.errors import ExecutorError, SliceLost, SweepBroken
from caviar.execution.base import Bar, Executor, Job, Slice, TrialOutcome, TrialTask
from caviar.execution.breaker import Breaker
from caviar.execution.forecast import Forecast
from caviar.execution.planner import SPARE_SLICE_S, Planner
from caviar.execution.pool import Pool
from caviar.handing_over import Handed, HandOver, Requests
from caviar.ledger import Ledger
from caviar.numbering import Numbers
from caviar.outcomes import is_partial, lost_trial, trial_after
from caviar.pruning import Pruning
from caviar.recorder import Recorder
from caviar.records import (
    Intervention,
    Params,
    StudySpec,
    SweepProgress,
    SweepResult,
    Trial,
    TrialResult,
    TrialState,
)
from caviar.search.sampler import TrialSampler
from caviar.space import SearchSpace
from caviar.storage.base import Storage
from caviar.storage.holder import new_holder
from caviar.storage.spool import DEFAULT_FOLDER, Spool
from caviar.training.agreement import another
from caviar.training.dataset import Dataset
from caviar.training.source import is_class_of_models

#: Trials sampled and added to the database at a time: memory stays flat however many there are to be. The first are
#: few, so that no worker waits while many are drawn.
_BLOCK = 1024
_FIRST_BLOCK = 32
#: Slices submitted for each worker: one that trains and one that waits, so that no worker does.
_SLICES_PER_WORKER = 2
_POLL_S = 0.2
#: Metrics that lie further apart are not those of one model.
_SAME = 1e-3
#: Fewer trials do not tell how long the rest take.
_TELLING_TRIALS = 3


#: Returns which unfinished trials to train, by number, and trials whose params are to be trained under new numbers.
PlanRepeats = Callable[[], tuple[Container[int], Sequence[Trial]]]


def sweep(
    storage: Storage,
    spec: StudySpec,
    data: Dataset | None,
    executor: Executor,
    n_trials: int,
    *,
    on_progress: Callable[[SweepProgress], None] = lambda progress: None,
    is_interrupted: Callable[[], bool] = lambda: False,
    spool_folder: Path = Path(DEFAULT_FOLDER),
    hand_over: HandOver | None = None,
    plan_repeats: PlanRepeats | None = None,
) -> SweepResult:
    """Train until the study holds `n_trials` trials, all of them ended.

    Trials that an earlier sweep left unfinished are trained first. The best trial is judged on the test part.

    Args:
        storage: the trial database.
        spec: of a study that is in it.
        data: what the spec names, loaded; None where it names none.
        executor: where to train; the data is loaded onto it.
        n_trials: trials of the study in all, whoever made them.
        on_progress: called a few times a second.
        is_interrupted: asked as often; once it is true the sweep ends after writing what it has.
        spool_folder: where results wait while the database does not answer.
        hand_over: how panda mode takes a trial that is asked for; where absent, none is given away.
        plan_repeats: asked, while nobody else writes the study, what to train instead: nothing is drawn then, and
            trials that an earlier sweep left unfinished stay so, but for those that are named.

    Raises:
        StudyBusy: another coordinator sweeps this study.
        SweepBroken: the first trials all failed alike.
        StorageError, ExecutorError: these failed; what was written stays, and the same sweep can go on.
    """
    recorder = Recorder(storage, spec.name, new_holder(), Spool(spec, spool_folder))
    try:
        coordinator = _Sweep(storage, recorder, spec, data, executor, n_trials, on_progress, is_interrupted, hand_over)
        return coordinator.run(plan_repeats)
    finally:
        recorder.close()


class _Sweep:
    def __init__(
        self,
        storage: Storage,
        recorder: Recorder,
        spec: StudySpec,
        data: Dataset | None,
        executor: Executor,
        n_trials: int,
        on_progress: Callable[[SweepProgress], None],
        is_interrupted: Callable[[], bool],
        hand_over: HandOver | None,
    ) -> None:
        self.storage, self.recorder, self.spec, self.data, self.executor = storage, recorder, spec, data, executor
        self.n_trials = n_trials
        self.on_progress, self.is_interrupted = on_progress, is_interrupted
        self.sampler = TrialSampler(SearchSpace.from_dict(spec.space), spec.seed)
        has_states = spec.trainable is None or is_class_of_models(spec.trainable)
        self.planner = Planner(data if spec.trainable is None else None, has_states=has_states)
        self.left: list[Trial] = []  # of an earlier sweep, to be trained once the pruning lets them
        self.pool = Pool(self.planner.cost)
        self.begun: dict[int, TrialResult] = {}  # trials that are trained in several slices, as they last stood
        self.requests = Requests(storage, spec.name, recorder, hand_over)
        self.in_doubt: dict[int, TrialTask] = {}  # trials of which it is not known whether they were handed over
        self.space_versions: dict[int, int] = {}  # of the trials in the pool and in the jobs
        self.jobs: dict[Job, None] = {}
        self.started_at = time.monotonic()
        self.forecast = Forecast(self.planner)
        self.breaker = Breaker()
        self.pruning = Pruning(spec)
        self.n_ended_now = 0
        self.judged: dict[str, float] | None = None  # what the best trial's worker found on the test part
        self.ledger = Ledger(storage, spec.name, recorder.owner)

    def run(self, plan_repeats: PlanRepeats | None) -> SweepResult:
        try:
            return self._run(plan_repeats)
        finally:
            self.ledger.count_workers(self.executor.n_workers)
            self.ledger.close(self.n_ended_now, self.recorder.write_s)

    def _run(self, plan_repeats: PlanRepeats | None) -> SweepResult:
        try:
            unfinished = self._recall()
            if plan_repeats is None:
                self._plan(unfinished)
            else:
                self._repeat(unfinished, plan_repeats())
            if self.pool or self.left or self._n_to_draw:
                self.ledger.open()
            self.executor.load(self.data)
            while not self.is_interrupted():
                self.ledger.count_workers(self.executor.n_workers)
                self._submit()
                if not self.jobs and not self.in_doubt and self.recorder.has_room:
                    break
                self._collect()
                self._sample_ahead()
                self._look_for_requests()
                self.recorder.check()
                self.on_progress(self._progress())
            if not self.is_interrupted():
                self._judge_best()
            self.recorder.flush()
            self._wait_for_database()
            return SweepResult(progress=self._progress(), interrupted=self.is_interrupted())
        except ExecutorError:
            self.recorder.flush()  # what the workers did give back is kept
            raise

    def _wait_for_database(self) -> None:
        """Return once all is written, or the person has had enough of waiting: then the spool keeps the rest."""
        while not self.recorder.wait_for_database(_POLL_S) and not self.is_interrupted():
            self.recorder.check()
            self.on_progress(self._progress())
        self.recorder.check()

    def _recall(self) -> list[Trial]:
        """Learn what the database holds: how many trials there are, the best so far; return those to be trained."""
        counts = self.storage.summary(self.spec.name).counts
        self.counts = {state: counts.get(state, 0) for state in TrialState}
        self.best = self.storage.best_trial(self.spec.name)
        if self.counts[TrialState.COMPLETE]:
            self.breaker.rest()  # these are not the study's first trials
        self.numbers = Numbers(self.storage, self.spec.name, sum(self.counts.values()))
        unfinished = self.storage.trials(self.spec.name, where="state = 'WAITING' or state = 'RUNNING'")
        # one with a parent goes on from a state that only panda mode has
        unfinished = [t for t in unfinished if t.parent is None and t.number not in self.numbers.babysat]
        n_running = sum(trial.state is TrialState.RUNNING for trial in unfinished)
        self.counts[TrialState.RUNNING] -= n_running  # nobody trains them now: they wait, like the others
        self.counts[TrialState.WAITING] += n_running
        return sorted(unfinished, key=lambda trial: (trial.state is TrialState.WAITING, trial.number))

    def _plan(self, unfinished: list[Trial]) -> None:
        """Take the trials that an earlier sweep left, and leave the numbers of those to come to nobody else."""
        self.numbers.reserve(self._n_to_draw)
        if self.spec.prune and (unfinished or self._n_to_draw):
            self.pruning.recall(self.storage, unfinished, self.numbers)
        # where fewer trials are asked for than an earlier sweep had planned, the rest stay planned
        n_ended = sum(self.counts.values()) - len(unfinished)
        self.left = sorted(unfinished[: max(self.n_trials - n_ended, 0)], key=lambda trial: trial.number)
        self._take_left()

    def _take_left(self) -> None:
        """Take those trials of an earlier sweep that may be trained by now."""
        ready: list[Trial] = []
        waiting: list[Trial] = []
        for trial in self.left:
            is_ready = self.pruning.is_ready(trial.number, trial.space_version, self._is_idle and not ready)
            (ready if is_ready else waiting).append(trial)
        self.left = waiting
        self._fill(ready)

    def _repeat(self, unfinished: list[Trial], plan: tuple[Container[int], Sequence[Trial]]) -> None:
        """Take some of the trials that are left, and the params of others once more; draw none."""
        named, repeated = plan
        going_on = [trial for trial in unfinished if trial.number in named]
        n_ended = sum(self.counts.values()) - len(unfinished)
        self.n_trials = n_ended + len(going_on) + len(repeated)
        self.numbers.reserve(len(repeated))
        self._fill(going_on)
        numbered = zip(self.numbers.following(len(repeated)), repeated, strict=True)
        self._add([(number, dict(trial.params), trial.space_version) for number, trial in numbered])

    @property
    def _is_idle(self) -> bool:
        """Whether all trials that were taken have ended, or are panda mode's."""
        return not (self.pool or self.jobs or self.in_doubt)

    @property
    def _n_to_draw(self) -> int:
        return max(self.n_trials - sum(self.counts.values()), 0)

    def _sample(self, n_most: int) -> None:
        """Draw the next trials, up to the budget, and as far as the pruning lets them be trained by now."""
        if self.left:
            self._take_left()
            return
        version, is_idle = self.spec.space_version, self._is_idle
        drawn: list[tuple[int, Params, int]] = []
        for number in self.numbers.following(min(n_most, self._n_to_draw)):
            if not self.pruning.is_ready(number, version, is_idle and not drawn):
                break
            drawn.append((number, self.sampler.params(number), version))
        self._add(drawn)

    def _add(self, drawn: list[tuple[int, Params, int]]) -> None:
        """Add trials to the database and to the pool: number, params, and version of the space."""
        if not drawn:
            return
        trials = [
            Trial(study=self.spec.name, number=n, state=TrialState.WAITING, params=params, space_version=version)
            for n, params, version in drawn
        ]
        self.recorder.add(trials)
        self.counts[TrialState.WAITING] += len(trials)
        self.numbers.use(trials[-1].number)
        self.pruning.add(trials)
        self._fill(trials)

    def _fill(self, trials: list[Trial]) -> None:
        self.space_versions.update((trial.number, trial.space_version) for trial in trials)
        tasks = [
            TrialTask(
                number=trial.number,
                params=trial.params,
                key=(self.spec.seed, trial.number),
                until=self.spec.epochs,
                bars=self.pruning.bars(trial),
            )
            for trial in trials
        ]
        self.forecast.plan(tasks)
        self.pool.add(tasks)

    def _submit(self) -> None:
        n_workers = self.executor.n_workers
        while len(self.jobs) < _SLICES_PER_WORKER * n_workers and self.recorder.has_room:
            if not self.pool:
                self._sample(_FIRST_BLOCK)
            if not self.pool:
                return
            if self.executor.can_grow:
                self.executor.expect(self._seconds_to_come())
            # where trials are pruned, those of the next generation are not to be had before these have ended
            n_to_come = 0 if self.spec.prune else self._n_to_draw
            is_late = self.executor.backlog_s > SPARE_SLICE_S
            taken = self.planner.take(self.pool, n_workers, n_to_come=n_to_come, spare=is_late)
            tasks = tuple(map(self.planner.cut, taken))
            self.jobs[self.executor.submit(self._slice(tasks))] = None

    def _sample_ahead(self) -> None:
        """Draw trials while the workers train: after the executor has had a moment to hand out what was submitted."""
        if len(self.pool) < _BLOCK // 4 and self.recorder.has_room:
            self._sample(_BLOCK)

    def _slice(self, tasks: tuple[TrialTask, ...]) -> Slice:
        bar = Bar(metric=self.spec.metric, direction=self.spec.direction, value=self.best.value if self.best else None)
        return Slice.of(self.spec, tasks, expected_s=self.planner.seconds(tasks), bar=bar)

    def _seconds_to_come(self) -> float:
        """Return how long one worker is thought to take for all that is left; trials to be drawn cost as others do."""
        return self.planner.seconds(self.pool) * (1 + self._n_to_draw / len(self.pool))

    def _collect(self) -> None:
        if not self.jobs and self.recorder.wait_for_database(_POLL_S) and self.in_doubt:
            time.sleep(_POLL_S)  # the database has all, and does not answer what became of these
        for job in self.executor.wait(list(self.jobs), _POLL_S):
            del self.jobs[job]
            try:
                outcomes = job.result()
            except SliceLost as lost:
                self._retry_alone(job.slice, lost)
                continue
            self.ledger.add(job, outcomes)
            self.forecast.do(job.slice.tasks)
            self.planner.learn(job.slice.tasks, sum(outcome.seconds for outcome in outcomes))
            for task, outcome in zip(job.slice.tasks, outcomes, strict=True):
                if is_partial(self.spec, outcome):
                    self._go_on(task, outcome)
                else:
                    self._tell(task, outcome)

    def _go_on(self, task: TrialTask, outcome: TrialOutcome) -> None:
        """Note how far a long trial has come, and put it where the next slice is taken from."""
        trial = self._trial(task, outcome)
        self.pruning.see(trial, outcome.reports)
        self.begun[task.number] = TrialResult(trial=trial)
        self.recorder.record(TrialResult(trial=trial, reports=outcome.reports))
        going_on = replace(task, state=outcome.train_state, until=self.spec.epochs, keep_state=False)
        asked = self.requests.take_up(task.number)
        if asked is not None:
            self._give_away(going_on, asked)
        else:
            self.pool.put_last(going_on)

    def _retry_alone(self, slice: Slice, lost: SliceLost) -> None:
        """One trial may have killed the worker: give each of the others a worker without it."""
        if len(slice.tasks) > 1:
            for task in slice.tasks:
                self.jobs[self.executor.submit(self._slice((task,)))] = None
            return
        task = slice.tasks[0]
        self.forecast.do(slice.tasks)
        begun, version = self.begun.pop(task.number, None), self.space_versions.pop(task.number)
        trial = lost_trial(self.spec, task, str(lost), begun.trial if begun else None, version)
        self.pruning.drop(task.number, version)
        self._record(TrialResult(trial=trial))

    def _tell(self, task: TrialTask, outcome: TrialOutcome) -> None:
        trial = self._trial(task, outcome)
        self.pruning.see(trial, outcome.reports)
        self.begun.pop(task.number, None)
        self.space_versions.pop(task.number)
        rank = self.spec.rank
        if trial.state is TrialState.COMPLETE and (self.best is None or rank(trial) < rank(self.best)):
            self.best, self.judged = trial, outcome.test_metrics
        self._record(TrialResult(trial=trial, reports=outcome.reports))

    def _trial(self, task: TrialTask, outcome: TrialOutcome) -> Trial:
        """Return a trial as it stands after a slice, with what earlier slices did."""
        earlier = self.begun[task.number].trial if task.number in self.begun else None
        return trial_after(self.spec, task, outcome, earlier, self.space_versions[task.number])

    def _record(self, result: TrialResult) -> None:
        self.recorder.record(result)
        self.counts[TrialState.WAITING] -= 1
        self.counts[result.trial.state] += 1
        self.n_ended_now += 1
        asked = self.requests.take_up(result.trial.number)
        if asked is not None:
            self.requests.refuse(asked, f"it has ended meanwhile, as {result.trial.state}")
        broken = self.breaker.see(result.trial)
        if broken is not None:
            self.recorder.flush()
            raise SweepBroken(broken)

    def _look_for_requests(self) -> None:
        """Give away trials that somebody wants to babysit; those that are being trained, at the end of their slice."""
        self._settle_doubts()
        for request in self.requests.look():
            number = request.number
            task = self.pool.take_number(number)
            if task is not None:
                self._give_away(task, request)
            elif any(number == task.number for job in self.jobs for task in job.slice.tasks):
                self.requests.put_off(request)
            elif number in self.numbers.babysat:
                self.requests.refuse(request, "somebody babysits it already")
            elif not any(number == trial.number for trial in self.left) and number not in self.in_doubt:
                self.requests.refuse(request, "this sweep does not train it")

    def _give_away(self, task: TrialTask, request: Intervention) -> None:
        """Hand a trial over, or keep it where nobody waits for it any more."""
        number = task.number
        begun = self.begun.get(number)
        trial = (
            begun.trial
            if begun
            else Trial(
                study=self.spec.name,
                number=number,
                state=TrialState.WAITING,
                params=task.params,
                space_version=self.space_versions[number],
            )
        )
        handed = self.requests.give(trial, task.state, request)
        if handed is Handed.GIVEN:
            self._forget(task)
        elif handed is Handed.KEPT:
            self.pool.put_last(task)
        else:
            self.in_doubt[number] = task

    def _settle_doubts(self) -> None:
        """Take the trials back that may have been handed over when the database went away, and were not."""
        for number, task in list(self.in_doubt.items()):
            is_given = self.requests.is_given(number)
            if is_given is None:
                return
            del self.in_doubt[number]
            if is_given:
                self._forget(task)
            else:
                self.pool.put_last(task)

    def _forget(self, task: TrialTask) -> None:
        """Note that a trial is panda mode's from now on."""
        number = task.number
        self.begun.pop(number, None)
        self.pruning.drop(number, self.space_versions.pop(number))
        self.forecast.drop(task)
        self.numbers.babysat[number] = task.params
        self.counts[TrialState.WAITING] -= 1
        self.counts[TrialState.RUNNING] += 1

    def _judge_best(self) -> None:
        """Write what the best trial gave on the test part (docs/decisions/0003)."""
        if self.spec.trainable is not None or self.data is None:
            return  # a function reports what it wants to
        if self.best is None or "test_accuracy" in self.best.metrics or not len(self.data.test):
            return
        judged = self.judged or self._train_again(self.best)
        if judged is not None:
            self.best = replace(self.best, metrics={**self.best.metrics, **judged})
            self.recorder.record(TrialResult(trial=self.best))

    def _train_again(self, best: Trial) -> dict[str, float] | None:
        """Train the best trial to the same bits; return what it gives on the test part, if it is the same."""
        if best.parent is not None or best.number in self.numbers.babysat:
            return None  # panda mode's: what was done to it is not in its params alone
        key, epochs = (self.spec.seed, best.number), self.spec.epochs
        task = TrialTask(number=best.number, params=best.params, key=key, until=epochs, judge=True)
        job = self.executor.submit(self._slice((task,)))
        while not self.executor.wait([job], _POLL_S):
            if self.is_interrupted():
                return None
        outcome = job.result()[0]
        # one that was imported may be another model
        is_other = another(best.metrics, outcome.reports.last, tolerance=_SAME)
        return None if is_other else outcome.test_metrics

    def _progress(self) -> SweepProgress:
        return SweepProgress(
            study=self.spec.name,
            n_trials=self.n_trials,
            n_complete=self.counts[TrialState.COMPLETE],
            n_pruned=self.counts[TrialState.PRUNED],
            n_failed=self.counts[TrialState.FAIL],
            n_running=min(len(self.jobs), self.executor.n_workers),
            n_babysat=self.counts[TrialState.RUNNING],
            n_ended_now=self.n_ended_now,
            seconds=time.monotonic() - self.started_at,
            n_workers=self.executor.n_workers,
            best=self.best,
            seconds_left=self._seconds_left(),
            notice=self.recorder.notice,
        )

    def _seconds_left(self) -> float | None:
        """Return how long the rest takes; None where too little is done to tell."""
        if self.n_ended_now < _TELLING_TRIALS:
            return None
        if not (self._n_to_draw or self.pool or self.jobs):
            return 0.0
        return self.forecast.seconds_left(time.monotonic() - self.started_at, self._n_to_draw)
