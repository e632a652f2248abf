"""Training by code of the user's, in any framework: it is given a task, and reports metrics epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from caviar.errors import TrainableError
from caviar.nn.initial import function_seed
from caviar.training.module import at_home, load
from caviar.training.own import Keeper, makes_models, trained
from caviar.training.reported import Reported
from caviar.training.seeded import seeded
from caviar.training.state import OwnState
from caviar.training.task import Assignment


def reported(
    given: Assignment,
    until: int,
    state: OwnState | None = None,
    keep: Callable[[OwnState], None] | None = None,
) -> Generator[dict[str, float], None, None]:
    """Call a function or make models of a class, and yield the metrics of each epoch, up to one.

    A function yields metrics after each epoch, or returns them at the end, which is one epoch: a dict of numbers by
    name, or one number, which is the study's metric. After its last epoch it may go on to its own end. A class has
    `train_epoch`; see :func:`caviar.training.own.trained`.

    Args:
        given: what is to be trained.
        until: epochs to have completed in all; a function trains them all.
        state: of a model, where to start; None is the beginning.
        keep: called with the state that is reached.

    Raises:
        TrainableError: the code cannot be found, reports something else, or has no state where one is wanted.
        BaseException: whatever the code raises.
    """
    spec = given.spec
    with at_home(spec.file):
        with seeded(0):  # what is drawn while it is loaded is the same in each process
            make = load(spec)
        if makes_models(make):
            yield from trained(given, make, until, state, keep)
            return
        if keep is not None or state is not None:
            raise TrainableError(
                f"expected {spec.name} to be a class with train_epoch, state_dict and load_state_dict, found one that "
                "trains in one go, so that it has no state to go on from; see docs/trainables.md"
            )
        with seeded(function_seed(given.key)):
            yield from _called(make(given.task()), given)


def restored(given: Assignment, state: OwnState) -> Any:
    """Return a model of the user's own in a state, to use it; raises as :func:`reported`."""
    with at_home(given.spec.file):
        with seeded(0):
            make = load(given.spec)
        return Keeper(given, make).restored(state)


def _called(found: Any, given: Assignment) -> Iterator[dict[str, float]]:
    """Yield what a function reports, which it has returned or yields."""
    reports, epochs = (iter(found), given.epochs) if _is_iterable(found) else (iter([found]), 1)
    checked = Reported(given.spec.name, given.metric)
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
