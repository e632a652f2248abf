"""A whole sweep on digits: caviar over Ray against PyTorch and scikit-learn in two processes, in trials per second.

All sides train the same random configurations for the same epochs, in turn, in one run. Starting Ray and the processes
is not counted: each side trains a few trials first. scikit-learn's MLPClassifier has no batch norm.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import itertools
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

from caviar.bootstrap import make_executor
from caviar.data import load_dataset, resolve
from caviar.search.sampler import TrialSampler
from caviar.space import Categorical, Float, Int, SearchSpace
from caviar.storage import open_storage
from caviar.study import create_study
from caviar.sweep import sweep

SPACE = SearchSpace(
    learning_rate=Float(1e-4, 0.1, scale="log"),
    hidden_units=Int(16, 128),
    layers=Int(1, 3),
    batch_size=Categorical(32, 64, 128, 256),
    optimizer="adam",
)


def torch_trial(params: dict[str, Any], epochs: int) -> float:
    """Train one network in PyTorch, validating each epoch; return the last validation accuracy."""
    import torch

    torch.set_num_threads(1)
    data = load_dataset(resolve("digits"))
    parts = [(torch.tensor(part.x), torch.tensor(part.y)) for part in (data.train, data.validation)]
    (x, y), (x_val, y_val) = parts
    sizes = [data.n_features, *[params["hidden_units"]] * params["layers"]]
    modules: list[torch.nn.Module] = []
    for D, H in itertools.pairwise(sizes):
        modules += [torch.nn.Linear(D, H, bias=False), torch.nn.BatchNorm1d(H), torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules, torch.nn.Linear(sizes[-1], data.n_classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=params["learning_rate"], fused=True)
    loss_of = torch.nn.CrossEntropyLoss()
    accuracy = 0.0
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(x))
        for start in range(0, len(x), params["batch_size"]):
            batch = order[start : start + params["batch_size"]]
            optimizer.zero_grad(set_to_none=True)
            loss_of(model(x[batch]), y[batch]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(x_val).argmax(1) == y_val).float().mean().item()
    return accuracy


def sklearn_trial(params: dict[str, Any], epochs: int) -> float:
    """Train one network in scikit-learn, without batch norm; return the validation accuracy."""
    from sklearn.neural_network import MLPClassifier

    data = load_dataset(resolve("digits"))
    model = MLPClassifier(
        [params["hidden_units"]] * params["layers"],
        batch_size=params["batch_size"],
        learning_rate_init=params["learning_rate"],
        max_iter=epochs,
        n_iter_no_change=epochs,
    )
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        model.fit(data.train.x, data.train.y)
    return float(model.score(data.validation.x, data.validation.y))


def main() -> None:
    """Print trials per second of each side, and the ratios to caviar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sampler = TrialSampler(SPACE, 0)
    configurations = [sampler.params(number) for number in range(options.trials)]
    folder = tempfile.mkdtemp(prefix="caviar-benchmark-")
    storage = open_storage(f"sqlite:///{folder}/caviar.db")
    executors = {"caviar, 2 workers": make_executor(None, 2)}
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    n_sweeps = 0

    def caviar_side(name: str, n_trials: int) -> None:
        nonlocal n_sweeps
        n_sweeps += 1
        study = create_study(f"s{n_sweeps}", SPACE, data="digits", epochs=options.epochs, storage=storage)
        sweep(storage, study.spec, study.data, executors[name], n_trials)

    def pool_side(trial: Callable[[dict[str, Any], int], float], n_trials: int) -> None:
        list(pool.map(trial, configurations[:n_trials], [options.epochs] * n_trials))

    executors["caviar, 1 process"] = make_executor(None, 0)
    sides: dict[str, Callable[[int], None]] = {name: lambda n, name=name: caviar_side(name, n) for name in executors}
    for name, trial in (("torch", torch_trial), ("sklearn", sklearn_trial)):
        try:
            __import__(name)
        except ImportError:
            continue
        sides[f"{name}, 2 processes"] = lambda n, trial=trial: pool_side(trial, n)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side(4)
    for _ in range(options.rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side(options.trials)
            rates[name].append(options.trials / (time.perf_counter() - start))
    reference = statistics.median(rates["caviar, 2 workers"])
    for name, values in rates.items():
        median = statistics.median(values)
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"{name:22} {median:7.1f} trials/s ({spread}); caviar is {reference / median:.2f} times as fast")
    pool.shutdown()
    for executor in executors.values():
        executor.close()


if __name__ == "__main__":
    main()
