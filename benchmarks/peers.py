"""The same trials as others would train them: in PyTorch, scikit-learn, Optuna and Ray Tune; and with nothing around.

They are in a module of their own, since processes of Ray Tune import what they run by its name.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from caviar.data import load_dataset, resolve
from caviar.nn.kernel import choose_kernel
from caviar.training.advance import advance, initial_state


def bare_trials(configurations: list[dict[str, Any]], epochs: int) -> None:
    """Train some networks as caviar's workers do, one after the other, without a study."""
    data, kernel = load_dataset(resolve("digits")), choose_kernel()
    for number, params in enumerate(configurations):
        advance(initial_state((0, number), params, data), params, data, epochs, kernel=kernel)


def torch_trial(
    params: dict[str, Any], epochs: int, report: Callable[[float, int], None] = lambda accuracy, epoch: None
) -> float:
    """Train one network in PyTorch, validating and reporting each epoch; return the last validation accuracy."""
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
    for epoch in range(1, epochs + 1):
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
        report(accuracy, epoch)
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


def optuna_trials(url: str, name: str, configurations: list[dict[str, Any]], epochs: int) -> None:
    """Train some configurations as trials of an Optuna study, with a report an epoch."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name=name, storage=url, sampler=optuna.samplers.RandomSampler())
    for params in configurations:
        trial = study.ask()
        for key, value in params.items():
            trial.suggest_categorical(key, [value]) if isinstance(value, str) else trial.suggest_float(key, 0, 1e3)
        study.tell(trial, torch_trial(params, epochs, trial.report))


def tune_trials(configurations: list[dict[str, Any]], epochs: int, folder: str) -> None:
    """Train some configurations as one Ray Tune experiment, with a report an epoch."""
    import ray
    from ray import tune

    if not ray.is_initialized():
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)

    def train(config: dict[str, Any]) -> None:
        torch_trial(config["params"], epochs, lambda accuracy, epoch: tune.report({"accuracy": accuracy}))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            param_space={"params": tune.grid_search(configurations)},
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
    if found.errors:
        raise RuntimeError(f"Ray Tune failed in {len(found.errors)} of {len(configurations)} trials") from found.errors[
            0
        ]
