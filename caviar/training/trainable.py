"""Training by code of the user's, in any framework: a function, or a class of models."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator
from typing import Any

from caviar.errors import TrainableError
from caviar.nn.initial import function_seed
from caviar.training.function import called
from caviar.training.module import at_home, load
from caviar.training.own import Keeper, makes_models, train_models
from caviar.training.seeded import seeded
from caviar.training.state import OwnState
from caviar.training.task import Assignment

#: What a class has that is called as a function: its objects are reports, or give them one by one.
_REPORTS = ("__iter__", "__float__", "__array__")


def train(
    given: Assignment,
    until: int,
    state: OwnState | None = None,
    keep: Callable[[OwnState], None] | None = None,
) -> Generator[dict[str, float], None, None]:
    """Train a trial by the user's code, and yield the metrics of each epoch.

    Args:
        given: what is to be trained.
        until: epochs to have completed in all; a function trains as many as the study has.
        state: of a model, where to start; None is the beginning.
        keep: called with the state that is reached.

    Raises:
        TrainableError: the code cannot be found, reports something else, or has no state where one is wanted.
        ParamsError: a model does not let a param be changed that was.
        BaseException: whatever the code raises.
    """
    with at_home(given.spec.file):
        make = _loaded(given)
        if makes_models(make):
            yield from train_models(given, make, until, state, keep)
            return
        if isinstance(make, type) and not any(hasattr(make, name) for name in _REPORTS):
            methods = [name for name in vars(make) if not name.startswith("_")]
            near = difflib.get_close_matches("train_epoch", methods, n=1)
            raise TrainableError(
                f"expected class {given.spec.name} to have train_epoch, state_dict and load_state_dict, found "
                f"{', '.join(methods) or 'none'}" + (f"; is {near[0]!r} meant to be train_epoch?" if near else "")
            )
        if keep is not None or state is not None:
            raise TrainableError(
                f"expected {given.spec.name} to be a class with train_epoch, state_dict and load_state_dict, found one "
                "that trains in one go, so that it has no state to go on from; see docs/trainables.md"
            )
        with seeded(function_seed(given.key)):
            yield from called(make(given.task()), given)


def model_in(given: Assignment, state: OwnState) -> Any:
    """Return an object of the user's class in a state, to use it.

    Raises:
        TrainableError: the code cannot be found.
        BaseException: whatever it raises.
    """
    with at_home(given.spec.file):
        return Keeper(given, _loaded(given)).model_in(state)


def _loaded(given: Assignment) -> Callable[[Any], Any]:
    with seeded(0):  # what is drawn while it is loaded is the same in each process
        return load(given.spec)
