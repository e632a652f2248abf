"""What may be asked of a study: its settings checked, completed, and held against those of one that exists."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import Any

import caviar
from caviar.checks import whole
from caviar.data import load_dataset
from caviar.errors import DataError, DataNotFound, SettingsError, SpaceError, StudyMismatch
from caviar.execution.halving import rungs
from caviar.nn.initial import MAX_SEED
from caviar.nn.kernel import kernel_name
from caviar.records import CLEAR_METRICS, EPOCH_METRICS, DataSpec, Direction, StudySpec, TrainableSpec, clear_direction
from caviar.space import Categorical, Float, Int, SearchSpace, default_space
from caviar.training.hyperparameters import Hyperparameters, check_param
from caviar.training.source import is_function, is_same_code
from caviar.wording import command

DEFAULT_EPOCHS = 20
#: What requests to a model that is babysat say besides the names of params.
_RESERVED = ("epochs", "to", "at")
#: Trials of a study, times that the best are trained again, workers: more than anybody has, so that they were mistyped.
MOST_TRIALS = 1_000_000_000
MOST_TIMES = 100_000
MOST_WORKERS = 10_000


def check_space(space: SearchSpace) -> None:
    """Check that the built-in network knows each param, and allows all that may be sampled.

    Raises:
        SpaceError: it is empty, a name is unknown (the message lists those there are), or a value is out of bounds.
    """
    if not space:
        raise SpaceError("the space is empty; give at least one param, as in SearchSpace(learning_rate=0.1)")
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


def new_spec(name: str, data: DataSpec, asked: dict[str, Any]) -> StudySpec:
    """Return the spec of a new study: what is asked for, else the defaults.

    Raises:
        SettingsError: trials are to be pruned, and have too few epochs, or what a trainable needs is missing.
        SpaceError: the built-in network knows a param not, or does not allow what may be sampled.
    """
    trainable: TrainableSpec | None = asked.get("trainable")
    check_asked(asked, trainable)
    if trainable is not None:
        _check_whole(asked, trainable)
    metric, epochs = asked.get("metric", "val_accuracy"), asked.get("epochs", DEFAULT_EPOCHS)
    if asked.get("prune") and not rungs(epochs):
        raise SettingsError(f"prune needs at least 4 epochs, to judge trials before the last, found {epochs}")
    return StudySpec(
        name=name,
        data=data,
        space=asked.get("space", default_space().to_dict()),
        seed=asked.get("seed", 0),
        metric=metric,
        direction=asked.get("direction") or clear_direction(metric) or Direction.MINIMIZE,
        epochs=epochs,
        dtype=asked.get("dtype", "float32"),
        kernel=kernel_name() if trainable is None else "",
        trainable=trainable,
        prune=asked.get("prune", False),
        caviar_version=caviar.__version__,
    )


def found_data(asked: DataSpec, found: StudySpec) -> DataSpec:
    """Return where a study's data lies now: where it was, unless it is there no more and what is asked for is the same.

    Data of other content is returned with its own fingerprint.
    """
    if asked.source == found.data.source and asked.target == found.data.target:
        return found.data
    fingerprint = load_dataset(replace(asked, fingerprint=""), found.dtype).fingerprint
    is_same = fingerprint == found.data.fingerprint
    return found.data if is_same and _is_still(found) else replace(asked, fingerprint=fingerprint)


def _is_still(found: StudySpec) -> bool:
    """Return whether a study's data lies where it was."""
    try:
        load_dataset(found.data, found.dtype)
    except (DataNotFound, DataError):  # nothing, or other data
        return False
    return True


def refuse_differences(found: StudySpec, asked: dict[str, Any]) -> None:
    """Refuse to go on with a study that asks another question.

    Raises:
        StudyMismatch: a setting differs; the message says which.
    """
    differences: list[str] = []
    for field in fields(found):
        had = getattr(found, field.name)
        wanted = asked.get(field.name, had)
        if field.name == "space" and wanted != had:
            names = [key for key in sorted({*had, *wanted}) if had.get(key) != wanted.get(key)]
            differences.append(f"another space ({', '.join(names)})")
        elif field.name == "trainable":
            differences += _differences_of_code(had, wanted)
        elif field.name == "data":
            if wanted.fingerprint == had.fingerprint:  # wherever it lies
                continue
            differences.append(f"data {_describe(had)}, not {_describe(wanted)}")
        elif wanted != had:
            differences.append(f"{field.name} = {_word(had)}, not {_word(wanted)}")
    if differences:
        only_space = len(differences) == 1 and differences[0].startswith("another space")
        version = found.space_version + 1
        new = f", give --new-space to draw further trials from this one as version {version}," if only_space else ","
        rest = f"leave these out to go on with it{new} or take another study name"
        if is_edited(found.trainable, asked.get("trainable")):  # which leaving it out would not help
            anew = command("delete", found.name)
            rest = f"take another study name, bring the file back to what it was, or begin anew: {anew}"
        raise StudyMismatch(f"study {found.name!r} exists with {' and '.join(differences)}; {rest}")


def is_edited(had: TrainableSpec | None, wanted: TrainableSpec | None) -> bool:
    """Return whether code is asked for that was another when its study was made."""
    return had is not None and wanted is not None and had.name == wanted.name and not is_same_code(had, wanted)


def _word(value: Any) -> str:
    return value.lower() if isinstance(value, Direction) else repr(value)


def _differences_of_code(had: TrainableSpec | None, wanted: TrainableSpec | None) -> list[str]:
    """Return how other code is named than a study is trained by, wherever its file lies."""
    if wanted is None or had == wanted:
        return []
    if had is None:
        return [f"the built-in network, not {wanted.name}"]
    if is_same_code(had, wanted):
        return []
    if is_edited(had, wanted):
        return [f"{had.name} as it was before it was changed"]
    return [f"trainable {had.name}, not {wanted.name}"]


def _describe(data: DataSpec) -> str:
    if not data.source:
        return "none"
    column = f" target {data.target!r}" if data.target else ""
    return f"{data.source!r}{column} (fingerprint {data.fingerprint[:8]})"


def check_kernel(found: StudySpec) -> None:
    """Refuse to go on with a study with another kernel than it was begun with.

    Raises:
        StudyMismatch: the environment asks for another.
        SettingsError: it is not installed here.
    """
    if found.trainable is not None:
        return
    wanted = os.environ.get("CAVIAR_KERNEL")
    if wanted and kernel_name() != found.kernel:
        raise StudyMismatch(
            f"study {found.name!r} was begun with kernel {found.kernel!r}, not {wanted!r}: the last bits would "
            "differ; unset CAVIAR_KERNEL to go on with it"
        )
    kernel_name(found.kernel)


def check_asked(asked: dict[str, Any], trainable: TrainableSpec | None) -> None:
    """Check the metric and the space that are asked for, of the built-in network or of a trainable.

    Raises:
        SettingsError, SpaceError: these are not valid.
    """
    metric, direction = asked.get("metric"), asked.get("direction")
    if trainable is None and metric is not None and metric not in EPOCH_METRICS:
        raise SettingsError(f"unknown metric {metric!r} (known: {', '.join(EPOCH_METRICS)})")
    if trainable is None and direction not in (None, clear_direction(metric or "val_accuracy")):
        raise SettingsError(
            "a direction is for metrics of a trainable; leave it out: those of the network have their own"
        )
    if "space" in asked:
        space = SearchSpace.from_dict(asked["space"])
        if trainable is None or not space:
            check_space(space)


def _check_whole(asked: dict[str, Any], trainable: TrainableSpec) -> None:
    """Refuse a new study of a trainable that lacks what no default can stand for.

    Raises:
        SettingsError: the message says what.
    """
    if "space" not in asked:
        raise SettingsError(f"{trainable.name} needs a space of its own params: give --space FILE.toml")
    unclear = [name for name in asked["space"] if name in _RESERVED]
    if unclear and not is_function(trainable):
        raise SettingsError(
            f"{unclear[0]!r} is not the name of a param of {trainable.name}: panda mode means something else by it; "
            "name it otherwise"
        )
    metric = asked.get("metric")
    if not metric:
        raise SettingsError(f"{trainable.name} needs the name of a metric that it reports: give --metric, as val_loss")
    if "direction" not in asked and clear_direction(metric) is None:
        raise SettingsError(
            f"give --direction maximize or minimize: more or less of {metric!r} may be better (where the name ends in "
            f"{', '.join(CLEAR_METRICS)}, it is clear)"
        )


def checked_direction(direction: str) -> Direction:
    """Return a direction as the record has it.

    Raises:
        SettingsError: it is none.
    """
    try:
        return Direction(direction.upper())
    except (ValueError, AttributeError):
        raise SettingsError(f"direction must be 'maximize' or 'minimize', found {direction!r}") from None


def check_settings(seed: int | None, epochs: int | None, dtype: str | None) -> None:
    """Refuse settings out of bounds; None is one that is not given.

    Raises:
        SettingsError: the message says which.
    """
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise SettingsError(f"seed must be 0 to {MAX_SEED}, found {seed}")
    if epochs is not None and epochs < 1:
        raise SettingsError(f"epochs must be at least 1, found {epochs}")
    if dtype is not None and dtype not in ("float32", "float64"):
        raise SettingsError(f"dtype must be 'float32' or 'float64', found {dtype!r}")


def check_workers(n_workers: Any) -> int | None:
    """Return a number of workers as Python's own; None is one that is not given.

    Raises:
        SettingsError: it is no whole number, below 0, or beyond what any cluster has.
    """
    number = whole("workers", n_workers)
    if number is not None and number < 0:
        raise SettingsError(f"workers must be at least 0 (0 is this process alone), found {number}")
    if number is not None and number > MOST_WORKERS:
        raise SettingsError(f"workers must be at most {MOST_WORKERS}, found {number}")
    return number
