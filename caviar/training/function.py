"""Training by a function of the user's: a training loop of its own, which reports metrics epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from caviar.training.report_check import ReportCheck
from caviar.training.task import Assignment


def called(found: Any, given: Assignment) -> Iterator[dict[str, float]]:
    """Yield what a function reports, at most so many epochs as there are to be; it has returned that, or yields it.

    A function yields metrics after each epoch, or returns them at the end, which is one epoch: a dict of numbers by
    name, or one number, which is the study's metric. After its last epoch it may go on to its own end.

    Raises:
        TrainableError: it reports something else.
        BaseException: whatever the function raises.
    """
    reports, epochs = (iter(found), given.epochs) if _is_iterable(found) else (iter([found]), 1)
    checked = ReportCheck(given.spec.name, given.metric)
    try:
        for epoch, report in enumerate(reports, start=1):
            if epoch > epochs:
                return
            yield checked.metrics(report, epoch)
    finally:
        if hasattr(reports, "close"):  # a generator, whose own `finally` is due
            reports.close()
    checked.check_any()


def _is_iterable(found: Any) -> bool:
    """Return whether reports can be taken from it one by one; a dict, a text and an array are one report, or none."""
    return hasattr(found, "__iter__") and not (isinstance(found, Mapping | str | bytes) or hasattr(found, "__array__"))
