"""The handle of a study: create it, sweep it, ask for its trials."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import caviar
from caviar.bootstrap import make_executor, make_storage
from caviar.data import NAMES, load_dataset, resolve
from caviar.errors import SettingsError, SpaceError, StudyMismatch, StudyNotFound
from caviar.nn.kernel import kernel_name
from caviar.records import EPOCH_METRICS, DataSpec, Direction, Reports, StudySpec, StudySummary, Trial
from caviar.search.sampler import MAX_SEED
from caviar.space import Categorical, Float, Int, SearchSpace, default_space
from caviar.storage import Storage
from caviar.sweep import SweepProgress, SweepResult, sweep
from caviar.training.dataset import Dataset
from caviar.training.hyperparameters import Hyperparameters, check_param

DEFAULT_EPOCHS = 20
#: Metrics of which more is better; of the others, less.
_MAXIMIZED = ("val_accuracy",)


class Study:
    """A study in a trial database.

    Make one with :func:`create_study` or :func:`load_study`. It holds no trials: each question goes to the database.
    """

    def __init__(self, spec: StudySpec, storage: Storage, data: Dataset | None = None) -> None:
        self.spec = spec
        self.storage = storage
        self._data = data

    def __repr__(self) -> str:
        return f"Study({self.spec.name!r}, data={self.spec.data.source!r}, seed={self.spec.seed})"

    @property
    def name(self) -> str:
        """The study's name."""
        return self.spec.name

    @property
    def data(self) -> Dataset:
        """The data, loaded when first used and checked against the fingerprint.

        Raises:
            DataError: it changed since the study was created.
        """
        if self._data is None:
            self._data = load_dataset(self.spec.data, self.spec.dtype)
        return self._data

    @property
    def best_trial(self) -> Trial | None:
        """The COMPLETE trial with the best value (ties: smaller `val_loss`, then smaller number), or None."""
        return self.storage.best_trial(self.name)

    def summary(self) -> StudySummary:
        """Return the study at a glance."""
        return self.storage.summary(self.name)

    def trials(self, *, where: str | None = None, sort: str | None = None, limit: int | None = None) -> list[Trial]:
        """Return trials, filtered and sorted in the database; see :meth:`caviar.storage.Storage.trials`."""
        return self.storage.trials(self.name, where=where, sort=sort, limit=limit)

    def reports(self, number: int) -> Reports:
        """Return the curve of one trial."""
        return self.storage.reports(self.name, number)

    def sweep(
        self,
        n_trials: int,
        *,
        n_workers: int | None = None,
        address: str | None = None,
        on_progress: Callable[[SweepProgress], None] = lambda progress: None,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> SweepResult:
        """Train until the study holds `n_trials` trials; see :func:`caviar.sweep.sweep`.

        Args:
            n_trials: in all, so that calling again does nothing, and a larger number goes on.
            n_workers: models trained at a time; None is every core, 0 trains in this process without Ray.
            address: of a running Ray cluster.
            on_progress: called a few times a second.
            is_interrupted: asked as often whether to stop.
        """
        if n_trials < 1:
            raise SettingsError(f"trials must be at least 1, found {n_trials}")
        if n_workers is not None and n_workers < 0:
            raise SettingsError(f"workers must be at least 0 (0 is this process alone), found {n_workers}")
        data = self.data
        if self._is_done(n_trials):  # no Ray need be started for that
            address, n_workers = None, 0
        executor = make_executor(address, n_workers)
        try:
            return sweep(
                self.storage,
                self.spec,
                data,
                executor,
                n_trials,
                on_progress=on_progress,
                is_interrupted=is_interrupted,
            )
        finally:
            executor.close()

    def _is_done(self, n_trials: int) -> bool:
        """Return whether the study holds so many trials, all of them ended."""
        summary = self.summary()
        unfinished = [state for state, count in summary.counts.items() if count and not state.is_finished]
        return summary.n_trials >= n_trials and not unfinished


def create_study(
    name: str,
    space: SearchSpace | None = None,
    *,
    data: str | Path | None = None,
    target: str | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    metric: str | None = None,
    dtype: str | None = None,
    storage: str | Storage | None = None,
) -> Study:
    """Create a study, or open the one of that name if it asks the same question.

    What is not given is the default for a new study (the lectures' space, `digits` or the data set that the study is
    named after, seed 0, 20 epochs, `val_accuracy`, float32), and whatever an existing one has.

    Args:
        name: of the study; no `/`.
        space: what to sample.
        data: a data set's name, or a file or folder.
        target: the column to predict, for tables.
        seed: 0 to 2**63 - 1; with a trial's number it decides all that is random in the trial.
        epochs: that each trial is trained.
        metric: `val_accuracy` (maximised), `val_loss` or `train_loss` (minimised).
        dtype: `float32` or `float64`.
        storage: URL of the trial database, or an open one; see `caviar.bootstrap.storage_url`.

    Raises:
        StudyMismatch: the study exists with other settings; the message says which.
        DataError, SpaceError, SettingsError: these are not valid.
    """
    _check_settings(seed, epochs, metric, dtype)
    if space is not None:
        check_space(space)
    opened = storage if isinstance(storage, Storage) else make_storage(storage)
    try:
        found = opened.get_study(name)
    except StudyNotFound:
        found = None
    given = {"seed": seed, "epochs": epochs, "metric": metric, "dtype": dtype}
    asked: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if space is not None:
        asked["space"] = space.to_dict()
    if found is None:
        source = data if data is not None else (name if name in NAMES else NAMES[0])
        spec = _new_spec(name, resolve(source, target), asked)
        dataset = load_dataset(spec.data, spec.dtype)
        spec = replace(spec, data=replace(spec.data, fingerprint=dataset.fingerprint))
        return Study(opened.create_study(spec), opened, dataset)
    if data is not None:
        asked["data"] = _found_data(resolve(data, target), found)
    elif target is not None:
        asked["data"] = replace(found.data, target=target)
    _refuse_differences(found, asked)
    _check_kernel(found)
    return Study(found, opened)


def load_study(name: str, *, storage: str | Storage | None = None) -> Study:
    """Open an existing study.

    Raises:
        StudyNotFound: there is none of that name.
    """
    opened = storage if isinstance(storage, Storage) else make_storage(storage, create=False)
    return Study(opened.get_study(name), opened)


def check_space(space: SearchSpace) -> None:
    """Check that the built-in network knows each param, and allows all that may be sampled.

    Raises:
        SpaceError: a name is unknown (the message lists those there are), or a value is out of bounds.
    """
    for name, domain in space.items():
        match domain:
            case Float() | Int():
                values: tuple[Any, ...] = (domain.low, domain.high)
            case Categorical():
                values = domain.choices
            case fixed:
                values = (fixed,)
        for value in values:
            try:
                check_param(name, value)
            except ValueError as error:
                whole = isinstance(domain, Float) and "whole number" in str(error)
                hint = '; write type = "int"' if whole else ""
                raise SpaceError(f"the space: {error}{hint}") from error
    sizes, layers = space.get("hidden_units"), space.get("layers")
    named = sizes.choices if isinstance(sizes, Categorical) else (sizes,)
    for size in named:
        if isinstance(size, str) and layers is not None:
            if isinstance(layers, Float | Int | Categorical):
                raise SpaceError(f"the space: hidden_units = {size!r} names its layers; leave layers out of the space")
            Hyperparameters.from_params({"hidden_units": size, "layers": layers})


def _new_spec(name: str, data: DataSpec, asked: dict[str, Any]) -> StudySpec:
    metric = asked.get("metric", "val_accuracy")
    return StudySpec(
        name=name,
        data=data,
        space=asked.get("space", default_space().to_dict()),
        seed=asked.get("seed", 0),
        metric=metric,
        direction=Direction.MAXIMIZE if metric in _MAXIMIZED else Direction.MINIMIZE,
        epochs=asked.get("epochs", DEFAULT_EPOCHS),
        dtype=asked.get("dtype", "float32"),
        kernel=kernel_name(),
        caviar_version=caviar.__version__,
    )


def _found_data(asked: DataSpec, found: StudySpec) -> DataSpec:
    """Return the study's data where what was asked for has the same content, wherever it lies now."""
    if asked.source == found.data.source and asked.target == found.data.target:
        return found.data
    fingerprint = load_dataset(asked, found.dtype).fingerprint
    return found.data if fingerprint == found.data.fingerprint else replace(asked, fingerprint=fingerprint)


def _refuse_differences(found: StudySpec, asked: dict[str, Any]) -> None:
    differences = []
    for field in fields(found):
        had = getattr(found, field.name)
        wanted = asked.get(field.name, had)
        if field.name == "space" and wanted != had:
            names = [key for key in sorted({*had, *wanted}) if had.get(key) != wanted.get(key)]
            differences.append(f"another space ({', '.join(names)})")
        elif field.name == "data" and wanted != had:
            differences.append(f"data {_describe(had)}, not {_describe(wanted)}")
        elif wanted != had:
            differences.append(f"{field.name} = {had!r}, not {wanted!r}")
    if differences:
        raise StudyMismatch(
            f"study {found.name!r} exists with {' and '.join(differences)}; leave these out to go on with it, or take "
            "another study name"
        )


def _describe(data: DataSpec) -> str:
    column = f" target {data.target!r}" if data.target else ""
    return f"{data.source!r}{column} (fingerprint {data.fingerprint[:8]})"


def _check_kernel(found: StudySpec) -> None:
    import os

    wanted = os.environ.get("CAVIAR_KERNEL")
    if wanted and kernel_name() != found.kernel:
        raise StudyMismatch(
            f"study {found.name!r} was begun with kernel {found.kernel!r}, not {wanted!r}: the last bits would "
            "differ; unset CAVIAR_KERNEL to go on with it"
        )
    kernel_name(found.kernel)


def _check_settings(seed: int | None, epochs: int | None, metric: str | None, dtype: str | None) -> None:
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise SettingsError(f"seed must be 0 to {MAX_SEED}, found {seed}")
    if epochs is not None and not 1 <= epochs <= math.inf:
        raise SettingsError(f"epochs must be at least 1, found {epochs}")
    if metric is not None and metric not in EPOCH_METRICS:
        raise SettingsError(f"unknown metric {metric!r} (known: {', '.join(EPOCH_METRICS)})")
    if dtype is not None and dtype not in ("float32", "float64"):
        raise SettingsError(f"dtype must be 'float32' or 'float64', found {dtype!r}")
