"""A whole sweep on digits: caviar over Ray against other ways to train the same random configurations on two cores.

The others are PyTorch and scikit-learn in two processes, Optuna over SQLite with two processes of PyTorch, and Ray Tune
with PyTorch. All sides run in turn in one run, in trials per second; the slow ones train some of the configurations, in
each round others, which are spread over all by what makes them costly. What pruning gains and loses is told beside.
Starting Ray and the processes is not counted: each side trains a few trials first.
"""

from __future__ import annotations

import os

from measuring import ONE_THREAD, Results, arguments, at_least

os.environ.update(ONE_THREAD)
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", RAY_AIR_NEW_OUTPUT="0")

import logging
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from peers import bare_trials, optuna_trials, sklearn_trial, torch_trial, tune_trials

from caviar.bootstrap import make_executor
from caviar.opening import create_study
from caviar.search.sampler import TrialSampler
from caviar.space import Categorical, Float, Int, SearchSpace
from caviar.storage import open_storage
from caviar.sweep import sweep

SPACE = SearchSpace(
    learning_rate=Float(1e-4, 0.1, scale="log"),
    hidden_units=Int(16, 128),
    layers=Int(1, 3),
    batch_size=Categorical(32, 64, 128, 256),
    optimizer="adam",
)
#: Trials of a round; caviar's side trains more, since it would be over too soon to be timed.
N_CAVIAR, N_POOL, N_OPTUNA, N_TUNE = 200, 24, 12, 4
AIMS = {"torch, 2 processes": 10, "sklearn, 2 processes": 7, "Optuna, SQLite, torch": 20, "Ray Tune, torch": 200}


class Sides:
    """Each way to train a number of trials, and what they share."""

    def __init__(self, folder: str, epochs: int) -> None:
        self.folder, self.epochs, self.n_studies = folder, epochs, 0
        sampler = TrialSampler(SPACE, 0)
        self.configurations = [sampler.params(number) for number in range(N_CAVIAR)]
        self.configurations.sort(key=lambda params: (params["batch_size"], params["layers"], params["hidden_units"]))
        self.offset = 0.5
        self.storage = open_storage(f"sqlite:///{folder}/caviar.db")
        self.executors = {2: make_executor(None, 2), 0: make_executor(None, 0)}
        self.pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
        self.tuner: ProcessPoolExecutor | None = None
        self.shares: list[float] = []

    def caviar(self, n_workers: int, n_trials: int, *, prune: bool = False) -> float:
        """Train over Ray or, with no workers, in this process; return the best value."""
        self.n_studies += 1
        study = create_study(
            f"s{self.n_studies}", SPACE, data="digits", epochs=self.epochs, prune=prune, storage=self.storage
        )
        data, start = study.data, time.perf_counter()
        sweep(self.storage, study.spec, data, self.executors[n_workers], n_trials)
        seconds = time.perf_counter() - start
        if n_workers == 2 and n_trials == N_CAVIAR and not prune:
            trained = sum(trial.seconds or 0.0 for trial in study.trials())
            self.shares.append(trained / seconds / n_workers)
        best = study.best_trial
        assert best is not None and best.value is not None
        return best.value

    def some(self, n_trials: int) -> list[dict[str, Any]]:
        """Return configurations that cost about as much as all do, the costly ones first."""
        step = len(self.configurations) / n_trials
        return [self.configurations[int((index + self.offset) * step)] for index in range(n_trials)]

    def processes(self, trial: Callable[..., float], n_trials: int) -> None:
        """Train in two processes."""
        list(self.pool.map(trial, self.some(n_trials), [self.epochs] * n_trials))

    def bare(self, n_processes: int) -> float:
        """Train all in one or two processes with nothing around; return the seconds."""
        parts = [self.configurations[index::n_processes] for index in range(n_processes)]
        start = time.perf_counter()
        list(self.pool.map(bare_trials, parts, [self.epochs] * n_processes))
        return time.perf_counter() - start

    def optuna(self, n_trials: int) -> None:
        """Train in two processes that share a study of Optuna in SQLite."""
        import optuna

        self.n_studies += 1
        url, name = f"sqlite:///{self.folder}/optuna.db", f"s{self.n_studies}"
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        optuna.create_study(study_name=name, storage=url)
        configurations = self.some(n_trials)
        halves = configurations[::2], configurations[1::2]
        list(self.pool.map(optuna_trials, [url] * 2, [name] * 2, halves, [self.epochs] * 2))

    def tune(self, n_trials: int) -> None:
        """Train as one experiment of Ray Tune."""
        if self.tuner is None:  # in a process of its own: caviar's workers hold the cores of this one's Ray
            self.tuner = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self.tuner.submit(tune_trials, self.some(n_trials), self.epochs, self.folder).result()

    def close(self) -> None:
        """Stop Ray and the processes."""
        for pool in (self.pool, self.tuner):
            if pool is not None:
                pool.shutdown()
        for executor in self.executors.values():
            executor.close()
        self.storage.close()


def installed(*names: str) -> bool:
    """Return whether packages can be imported, with what they need themselves."""
    try:
        for name in names:
            import_module(name)
    except ImportError:
        return False
    return True


def main() -> None:
    """Print trials per second of each side, and the ratios to caviar."""
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    results = Results(options)
    with tempfile.TemporaryDirectory(prefix="caviar-benchmark-") as folder:
        sides = Sides(str(Path(folder)), options.epochs)
        runs: dict[str, tuple[int, Callable[[int], Any]]] = {
            "caviar, 2 workers": (N_CAVIAR, lambda n: sides.caviar(2, n)),
            "caviar, 1 process": (N_CAVIAR, lambda n: sides.caviar(0, n)),
            "sklearn, 2 processes": (N_POOL, lambda n: sides.processes(sklearn_trial, n)),
        }
        if installed("torch"):
            runs["torch, 2 processes"] = (N_POOL, lambda n: sides.processes(torch_trial, n))
            runs["Optuna, SQLite, torch"] = (N_OPTUNA, sides.optuna)
        if installed("torch", "ray.tune"):
            runs["Ray Tune, torch"] = (N_TUNE, sides.tune)
        for n_trials, run in runs.values():
            run(max(n_trials // 10, 2))
        sides.bare(2)
        gains: list[float] = []
        pruned, lost = [], []
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(options.rounds):
            sides.offset = (number + 0.5) / options.rounds
            found = {}
            for name, (n_trials, run) in runs.items():
                start = time.perf_counter()
                found[name] = run(n_trials)
                rates[name].append(n_trials / (time.perf_counter() - start))
            gains.append(sides.bare(1) / sides.bare(2))
            start = time.perf_counter()
            best = sides.caviar(2, N_CAVIAR, prune=True)
            pruned.append(N_CAVIAR / (time.perf_counter() - start) / rates["caviar, 2 workers"][-1])
            lost.append(found["caviar, 2 workers"] - best)
        sides.close()
    aims = {name: at_least(bound) for name, bound in AIMS.items()} | {"caviar, 1 process": at_least(1.9)}
    results.compare(
        "digits, random configurations, 20 epochs", rates, ours="caviar, 2 workers", unit="trials/s", aims=aims,
        higher_is_better=True,
    )  # fmt: skip
    results.figure("what the machine itself gains by a second process", gains, "", higher_is_better=True)
    results.figure("with pruning, times as many trials a second", pruned, "", higher_is_better=True)
    results.figure("with pruning, what the best validation accuracy loses", lost, "")
    results.figure("share of workers' time in training", sides.shares, "", at_least(0.9))
    results.finish()


if __name__ == "__main__":
    main()
