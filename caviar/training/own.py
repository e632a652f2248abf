"""A model of the user's own, in any framework, whose state is a value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from caviar.errors import ParamsError, TrainableError
from caviar.nn.initial import function_seed
from caviar.records import Params
from caviar.training.agreement import is_same
from caviar.training.report_check import ReportCheck
from caviar.training.seeded import seeded
from caviar.training.state import OwnState
from caviar.training.task import Assignment, Task
from caviar.training.values import pack, unpack

#: What makes a model of an object, and what it needs besides.
_TRAINS, _NEEDED = "train_epoch", ("state_dict", "load_state_dict")
#: Trials of a study with smaller numbers show whether the state of a model is all that it goes on from.
_TRIED = 10


def makes_models(code: Any) -> bool:
    """Return whether it is a class of models, which train epoch by epoch when they are told to."""
    return isinstance(code, type) and callable(getattr(code, _TRAINS, None))


def train_models(
    given: Assignment,
    make: Callable[[Task], Any],
    until: int,
    state: OwnState | None,
    keep: Callable[[OwnState], None] | None,
) -> Iterator[dict[str, float]]:
    """Train a model up to an epoch, and yield the metrics of each.

    Each epoch is trained by a new object, which is given the state that the epoch before it gave: what a class keeps
    elsewhere cannot matter. So the bits are the same in one go and in many, in a sweep and babysat.

    Args:
        given: what is to be trained.
        make: the class.
        until: epochs to have completed in all.
        state: where to start; None is the beginning.
        keep: called with the state that is reached.

    Raises:
        TrainableError: it is no whole model, or does not go on from its state as it would have without.
        ParamsError: others are in force than it was trained with, and it does not let them be changed.
    """
    keeper = Keeper(given, make)
    state = keeper.beginning() if state is None else state
    while state.epoch < until:
        model = keeper.model_in(state)
        metrics, reached = keeper.epoch(model, state)
        is_first, state = not state.epoch, reached
        yield metrics
        if is_first and state.key[1] < _TRIED and given.epochs > 1:
            keeper.check_goes_on(model, state)
    if keep is not None:
        keep(keeper.in_force(state))


class Keeper:
    """Makes models, trains them for an epoch, and takes their states; everything with the seeds that are due."""

    def __init__(self, given: Assignment, make: Callable[[Task], Any]) -> None:
        self._given, self._make = given, make
        self._name, self._seed = given.spec.name, function_seed(given.key)
        missing = [name for name in _NEEDED if not callable(getattr(make, name, None))]
        if missing:
            raise TrainableError(f"expected {self._name}, which has train_epoch, to have {' and '.join(missing)}, too")

    def beginning(self) -> OwnState:
        """Return the state of a model that has done nothing yet."""
        with seeded(self._seed):
            model = self._make(self._given.task())
        return self._state_of(model, 0, ReportCheck(self._name, self._given.metric))

    def model_in(self, state: OwnState) -> Any:
        """Return a new object in a state, with the params in force.

        Raises:
            ParamsError: they are others than it was trained with, and it does not let them be changed.
        """
        with seeded(self._seed):
            model = self._make(self._given.task())
            model.load_state_dict(unpack(state.arrays, state.layout))
            if dict(state.params) != dict(self._given.params):
                _set_params(model, self._name, state.params, self._given.params)
        return model

    def in_force(self, state: OwnState) -> OwnState:
        """Return a state with the params in force, of which its model is told where it was trained with others.

        Raises:
            ParamsError: it does not let them be changed.
        """
        if dict(state.params) == dict(self._given.params):
            return state
        return self._state_of(self.model_in(state), state.epoch, self._check_of(state))

    def epoch(self, model: Any, state: OwnState) -> tuple[dict[str, float], OwnState]:
        """Train one more epoch; return what it reports, and the state that it ends in."""
        epoch, checked = state.epoch + 1, self._check_of(state)
        with seeded(function_seed(self._given.key, epoch)):
            metrics = checked.metrics(model.train_epoch(epoch), epoch)
            return metrics, self._state_of(model, epoch, checked)

    def _check_of(self, state: OwnState) -> ReportCheck:
        return ReportCheck(self._name, self._given.metric, state.metrics)

    def _state_of(self, model: Any, epoch: int, checked: ReportCheck) -> OwnState:
        with seeded(function_seed(self._given.key, epoch)):
            arrays, layout = pack(model.state_dict(), f"state_dict of {self._name}")
        return OwnState(
            key=self._given.key,
            epoch=epoch,
            step=epoch,
            arrays=arrays,
            layout=layout,
            params=dict(self._given.params),
            metrics=checked.names,
        )

    def check_goes_on(self, model: Any, state: OwnState) -> None:
        """Train the next epoch from a state and without it: a class that leaves something out of it learns worse.

        Raises:
            TrainableError: the two differ.
        """
        metric = self._given.metric  # others may be of this moment, as a time
        metrics, end = self.epoch(model, state)
        again, other = self.epoch(self.model_in(state), state)
        if is_same(again[metric], metrics[metric]) and not end.differing(other):
            return
        third, last = self.epoch(self.model_in(state), state)
        by_itself = other.differing(last)  # as a time in a state
        arrays = [name for name in end.differing(other) if name not in by_itself]
        if not is_same(again[metric], metrics[metric]) and is_same(again[metric], third[metric]):
            what = f"{metric} {again[metric]:.6g}, not {metrics[metric]:.6g}"
        elif arrays:
            what = f"another {arrays[0]!r}" if arrays[0] in end.arrays else "other numbers or texts"
        else:
            return
        raise TrainableError(
            f"expected {self._name} to go on from its state_dict as without it, found {what} in epoch "
            f"{state.epoch + 1}; let state_dict and load_state_dict hold all that training changes (optimizer, "
            "scheduler, generators of its own)"
        )


def _set_params(model: Any, name: str, before: Params, now: Params) -> None:
    """Tell a model which params are others from now on; those that it cannot be called without, too.

    Raises:
        ParamsError: it takes no such param.
    """
    changed = {param: value for param, value in now.items() if before.get(param) != value}
    method = getattr(model, "set_params", None)
    if not callable(method):
        raise ParamsError(
            f"{name} has no set_params, so that {', '.join(changed)} cannot be changed while it is trained"
        )
    known = inspect.signature(method).parameters.values()
    takes_any = any(each.kind is each.VAR_KEYWORD for each in known)
    taken = {each.name: each for each in known if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)}
    refused = [param for param in changed if param not in taken and not takes_any]
    if refused:
        raise ParamsError(
            f"{', '.join(refused)} cannot be changed while {name} is trained; its set_params takes "
            f"{', '.join(taken) or 'none'}"
        )
    needed = {name: now[name] for name, each in taken.items() if each.default is each.empty and name in now}
    method(**{**needed, **changed})
