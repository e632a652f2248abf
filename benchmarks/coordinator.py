"""What caviar itself costs: trials that do nothing, trials of a second, and the coordinator with a thousand workers.

Nothing is trained: workers run functions of this file in the place of the network's. The best trial's second training,
one a sweep, does nothing either. Ray's start is not counted: each executor runs a small sweep first.
"""

from __future__ import annotations

import os

from measuring import ONE_THREAD

os.environ |= ONE_THREAD

import argparse
import itertools
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from databases import databases
from measuring import Results, arguments, at_least, at_most, hold_to_one_core, in_turn

from caviar.execution.base import Executor, Job, Runner, Slice, TrialOutcome, TrialTask
from caviar.records import EPOCH_METRICS, DataSpec, Reports, StudySpec, SweepProgress, TrialState
from caviar.space import default_space
from caviar.storage import Storage, open_storage
from caviar.sweep import sweep
from caviar.training.dataset import Dataset, Examples

ROUNDS = 5
EPOCHS = 20
N_NULL, N_TUNE = 5000, 4
N_SECOND = 10
N_COORDINATOR, N_SIMULATED = 100_000, 1000
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def outcome(task: TrialTask, seconds: float) -> TrialOutcome:
    """Return what a network would have reported, from the trial's number."""
    values = np.full((EPOCHS, len(EPOCH_METRICS)), 1.0 / (1 + task.number % 97))
    return TrialOutcome(
        number=task.number,
        state=TrialState.COMPLETE,
        reports=Reports(1, EPOCH_METRICS, values),
        epoch=EPOCHS,
        started_at=_NOW,
        finished_at=_NOW,
        seconds=seconds,
        worker="benchmark",
        test_metrics={"test_accuracy": 0.5} if task.judge else None,
    )


def run_nothing(slice: Slice, data: Dataset) -> list[TrialOutcome]:
    """Report for each trial without training it."""
    return [outcome(task, 1e-5) for task in slice.tasks]


def spin(n_steps: int) -> float:
    """Keep a core busy for a number of steps; return the seconds that it took."""
    start, x = time.perf_counter(), 0
    for step in range(n_steps):
        x ^= step
    return time.perf_counter() - start


def runner_that_spins(n_steps: int) -> Runner:
    """Return what keeps a worker busy for so many steps a trial."""

    def run(slice: Slice, data: Dataset) -> list[TrialOutcome]:
        return [outcome(task, 0.0 if task.judge else spin(n_steps)) for task in slice.tasks]

    return run


def small_data() -> Dataset:
    """A few examples, which nobody looks at."""
    part = Examples(np.zeros((300, 10), np.float32), np.arange(300) % 3)
    return Dataset("none", part, part, part, ("a", "b", "c"), tuple(f"x{index}" for index in range(10)), "f" * 64)


class Sweeper:
    """Sweeps one new study after the other."""

    def __init__(self, storage: Storage, executor: Executor) -> None:
        self._storage, self._executor, self._data, self._n = storage, executor, small_data(), 0

    def __call__(self, n_trials: int, on_progress: Callable[[SweepProgress], None] = lambda progress: None) -> float:
        """Return the seconds that it took until all trials were in the database."""
        self._n += 1
        spec = StudySpec(
            name=f"study{self._n}",
            data=DataSpec(source="none", fingerprint="f" * 64),
            space=default_space().to_dict(),
            epochs=EPOCHS,
        )
        spec, start = self._storage.create_study(spec), time.perf_counter()
        with tempfile.TemporaryDirectory() as spool:
            result = sweep(
                self._storage,
                spec,
                self._data,
                self._executor,
                n_trials,
                on_progress=on_progress,
                spool_folder=Path(spool),
            )
        assert result.progress.n_complete == n_trials
        return time.perf_counter() - start


def null_trials(results: Results, rounds: int) -> None:
    """Trials that report 20 epochs of three metrics, through Ray, into each database; Ray Tune for comparison."""
    from workers.executor import RayExecutor

    executor = RayExecutor(run=run_nothing)
    try:
        with databases() as makers:
            for name, make in makers.items():
                storage = open_storage(make()[0])
                run = Sweeper(storage, executor)
                run(500)
                rates = [N_NULL / run(N_NULL) for _ in range(rounds)]
                results.figure(f"null trials, {name}", rates, "trials/s", at_least(500))
                storage.close()
    finally:
        executor.close()
    command = [sys.executable, __file__, "--tune", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    if lines:
        results.figure("null trials, Ray Tune", json.loads(lines[-1]), "trials/s")
    else:
        print(f"  Ray Tune does not run here: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


def tune_rates(rounds: int) -> list[float]:
    """Return Ray Tune's trials per second for an objective that reports 20 numbers."""
    import ray
    from ray import tune

    def objective(config: dict[str, float]) -> None:
        for epoch in range(EPOCHS):
            tune.report({"loss": config["x"] / (1 + epoch)})

    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            tune.Tuner(
                objective,
                param_space={"x": tune.uniform(0, 1)},
                tune_config=tune.TuneConfig(num_samples=N_TUNE),
                run_config=tune.RunConfig(storage_path=folder, verbose=0),
            ).fit()
        rates.append(N_TUNE / (time.perf_counter() - start))
    return rates


def trials_of_a_second(results: Results, rounds: int) -> None:
    """Trials that keep a core busy for a second, on all cores, against the same work in bare processes."""
    from workers.executor import RayExecutor

    n_cores = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(n_cores) as pool:
        n_probe = 5_000_000
        n_steps = round(n_probe / statistics.median(pool.map(spin, [n_probe] * 3 * n_cores, chunksize=1)))
        executor = RayExecutor(run=runner_that_spins(n_steps))
        try:
            with tempfile.TemporaryDirectory() as folder:
                storage = open_storage(f"sqlite:///{folder}/caviar.db")
                run = Sweeper(storage, executor)
                run(n_cores)
                n_trials = N_SECOND * n_cores // 2
                sides = {
                    "caviar": lambda: run(n_trials),
                    "bare processes": lambda: pool.map(spin, [n_steps] * n_trials, chunksize=1),
                }
                seconds = in_turn(sides, rounds)
                aims = {"bare processes": at_least(1 / 1.03)}
                results.compare(f"{n_trials} trials of 1 s on {n_cores} cores", seconds, ours="caviar", aims=aims)
                storage.close()
        finally:
            executor.close()


class SimulatedJob(Job):
    """A slice that is done."""

    def __init__(self, slice: Slice) -> None:
        self.slice = slice

    def result(self) -> list[TrialOutcome]:
        """See :meth:`Job.result`."""
        return [outcome(task, 1.0) for task in self.slice.tasks]


class SimulatedExecutor(Executor):
    """A thousand workers that say that each trial took a second, and are done whenever they are asked."""

    @property
    def n_workers(self) -> int:
        """See :class:`Executor`."""
        return N_SIMULATED

    def load(self, data: Dataset) -> None:
        """See :meth:`Executor.load`."""

    def submit(self, slice: Slice) -> Job:
        """See :meth:`Executor.submit`."""
        return SimulatedJob(slice)

    def wait(self, jobs: Sequence[Job], timeout_s: float) -> list[Job]:
        """Return some of them, as a poll would."""
        return list(jobs)[:50]

    def close(self) -> None:
        """See :meth:`Executor.close`."""


def anonymous_mb() -> float:
    """Return the memory of this process that is not pages of the database's file, which SQLite maps."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1e3


def coordinator(results: Results) -> None:
    """The coordinator alone, its database included, on one core: trials per second, and its memory."""
    hold_to_one_core()
    marks: list[tuple[int, float, float]] = []
    n_part = N_COORDINATOR // 50

    def note(progress: SweepProgress) -> None:
        if progress.n_ended_now >= n_part * (len(marks) + 1):
            marks.append((progress.n_ended_now, time.process_time(), anonymous_mb()))

    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(f"sqlite:///{folder}/caviar.db")
        Sweeper(storage, SimulatedExecutor())(N_COORDINATOR, note)
        storage.close()
    pairs = list(itertools.pairwise(marks))
    rates = [(later[0] - earlier[0]) / (later[1] - earlier[1]) for earlier, later in pairs]
    results.figure(f"coordinator, {N_SIMULATED} workers", rates, "trials per second of its core", at_least(2000))
    memory = [mark[2] for mark in marks]
    results.figure("its memory", memory, "MB")
    # at first the backlog of the recorder fills, which is bounded
    half, rest = len(memory) // 2, len(memory) * 3 // 4
    growth = statistics.median(memory[rest:]) / statistics.median(memory[half:rest])
    results.figure("its memory, last quarter by third", [growth], "", at_most(1.05))


def main() -> None:
    """Run all, or what --only names."""
    parser = arguments(__doc__, ROUNDS)
    parser.add_argument("--only", choices=("null", "second", "coordinator"))
    parser.add_argument("--tune", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.tune:
        print(json.dumps(tune_rates(given.tune)))
        return
    results = Results(given)
    if given.only in (None, "null"):
        null_trials(results, given.rounds)
    if given.only in (None, "second"):
        trials_of_a_second(results, given.rounds)
    if given.only in (None, "coordinator"):
        coordinator(results)
    results.finish()


if __name__ == "__main__":
    main()
