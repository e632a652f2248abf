"""Training by a function of the user's, in any framework: it is given a task, and reports metrics epoch by epoch."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from caviar.errors import TrainableError
from caviar.nn.initial import Key, function_seed
from caviar.records import Params, TrainableSpec
from caviar.training.dataset import Dataset, Examples
from caviar.training.module import at_home, load
from caviar.training.seeded import seeded


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a function is given: one trial to train."""

    #: Of the trial, as the space gives them.
    params: Params
    #: 0 to 2**31 - 1, of this trial alone: for all that is random. Python's, NumPy's and PyTorch's own generators are
    #: seeded with it.
    seed: int
    #: To train; a function that goes on is closed at its next report, and it may end earlier by itself.
    epochs: int
    #: The study's name, and the trial's number.
    study: str
    number: int
    #: The study's data, split and standardised: `data.train.x` (N, D) and `data.train.y` (N,), `data.validation`,
    #: `data.test`; None where it has none. A copy for this trial alone.
    data: Dataset | None


def reported(
    spec: TrainableSpec, name: str, key: Key, params: Params, epochs: int, data: Dataset | None, metric: str
) -> Generator[dict[str, float], None, None]:
    """Call a function, and yield the metrics of each epoch that it reports, at most so many.

    A function yields metrics after each epoch, or returns them at the end, which is one epoch: a dict of numbers by
    name, or one number, which is the study's metric. After its last epoch it may go on to its own end.

    Args:
        spec: the function.
        name: of the study.
        key: (study seed, trial number).
        params: of the trial.
        epochs: to train.
        data: of the study.
        metric: that has to be among what is reported.

    Raises:
        TrainableError: the function cannot be found, or reports something else.
        BaseException: whatever the function raises.
    """
    with at_home(spec.file):
        with seeded(0):  # what is drawn while it is loaded is the same in each process
            function = load(spec)
        task = Task(
            params=dict(params), seed=function_seed(key), epochs=epochs, study=name, number=key[1], data=_own(data)
        )
        with seeded(task.seed):
            found = function(task)
            if _is_iterable(found):
                yield from _checked(iter(found), epochs, metric, spec.name)
            else:
                yield from _checked(iter([found]), 1, metric, spec.name)


def _own(data: Dataset | None) -> Dataset | None:
    """Return a copy: what a function writes into it, also through a tensor that shares it, is no other trial's."""
    if data is None:
        return None
    train, validation, test = (
        Examples(part.x.copy(), part.y.copy()) for part in (data.train, data.validation, data.test)
    )
    return replace(data, train=train, validation=validation, test=test)


def _is_iterable(found: Any) -> bool:
    """Return whether reports can be taken from it one by one; a dict, a text and an array are one report, or none."""
    return hasattr(found, "__iter__") and not (isinstance(found, Mapping | str | bytes) or hasattr(found, "__array__"))


def _checked(found: Iterator[Any], epochs: int, metric: str, name: str) -> Iterator[dict[str, float]]:
    """Yield reports as plain numbers; all of a trial have the same names."""
    names: list[str] | None = None
    try:
        for epoch, report in enumerate(found, start=1):
            if epoch > epochs:
                return
            metrics = _numbers(report if isinstance(report, Mapping) else {metric: report}, name)
            if metric not in metrics:
                listed = ", ".join(metrics) or "nothing"
                raise TrainableError(f"expected metric {metric!r} among what {name} reports, found {listed}")
            if names is not None and names != list(metrics):
                if sorted(names) != sorted(metrics):
                    raise TrainableError(
                        f"expected {name} to report the same metrics in each epoch, {', '.join(names)}, found "
                        f"{', '.join(metrics)} in epoch {epoch}"
                    )
                metrics = {each: metrics[each] for each in names}
            names = list(metrics)
            yield metrics
    finally:
        if hasattr(found, "close"):  # a generator, whose own `finally` is due
            found.close()
    if names is None:
        raise TrainableError(f"expected {name} to report {metric!r} after each epoch, found that it reported nothing")


def _numbers(report: Mapping[Any, Any], name: str) -> dict[str, float]:
    try:
        if any(isinstance(value, str | bytes) for value in report.values()):
            raise TypeError
        metrics = {metric: float(value) for metric, value in report.items()}
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
        raise TrainableError(_expected(name, report)) from None
    if not all(isinstance(metric, str) and metric and metric.isprintable() for metric in metrics):
        raise TrainableError(_expected(name, report))
    return metrics


def _expected(name: str, report: object) -> str:
    return f"expected {name} to report numbers by name, as {{'loss': 0.3}}, found {report!r:.80}"
