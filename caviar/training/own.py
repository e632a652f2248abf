"""A model of the user's own, in any framework, whose state is a value."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

from caviar.errors import ParamsError, TrainableError
from caviar.nn.initial import function_seed
from caviar.records import Params
from caviar.training.reported import Reported
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


def trained(
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
    keeper.check()
    if state is None:
        state = keeper.beginning()
    while state.epoch < until:
        model = keeper.restored(state)
        metrics, reached = keeper.epoch(model, state)
        if not state.epoch and state.key[1] < _TRIED and given.epochs > 1 and math.isfinite(metrics[given.metric]):
            keeper.check_goes_on(model, reached)
        state = reached
        yield metrics
    if keep is None:
        return
    if dict(state.params) != dict(given.params):  # as where it is asked whether they may be
        state = keeper.state_of(keeper.restored(state), state.epoch, keeper.reported(state))
    keep(state)


class Keeper:
    """Makes models, trains them for an epoch, and takes their states; everything with the seeds that are due."""

    def __init__(self, given: Assignment, make: Callable[[Task], Any]) -> None:
        self._given, self._make = given, make
        self._name, self._seed = given.spec.name, function_seed(given.key)

    def check(self) -> None:
        missing = [name for name in _NEEDED if not callable(getattr(self._make, name, None))]
        if missing:
            raise TrainableError(f"expected {self._name}, which has train_epoch, to have {' and '.join(missing)}, too")

    def beginning(self) -> OwnState:
        """Return the state of a model that has done nothing yet."""
        with seeded(self._seed):
            model = self._make(self._given.task())
        return self.state_of(model, 0, Reported(self._name, self._given.metric))

    def reported(self, state: OwnState) -> Reported:
        return Reported(self._name, self._given.metric, state.metrics)

    def restored(self, state: OwnState) -> Any:
        """Return a new object in a state, with the params in force."""
        with seeded(self._seed):
            model = self._make(self._given.task())
            model.load_state_dict(unpack(state.arrays, state.layout))
            if dict(state.params) != dict(self._given.params):
                _set_params(model, self._name, state.params, self._given.params)
        return model

    def epoch(self, model: Any, state: OwnState) -> tuple[dict[str, float], OwnState]:
        """Train one more epoch; return what it reports, and the state that it ends in."""
        epoch, checked = state.epoch + 1, self.reported(state)
        with seeded(function_seed(self._given.key, epoch)):
            metrics = checked.metrics(model.train_epoch(epoch), epoch)
            return metrics, self.state_of(model, epoch, checked)

    def state_of(self, model: Any, epoch: int, checked: Reported) -> OwnState:
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
        """Train the next epoch from a state and without it: a class that leaves something out of it learns worse."""
        metrics, end = self.epoch(model, state)
        again, other = self.epoch(self.restored(state), state)
        metric = self._given.metric  # others may be of this moment, as a time
        arrays = [name for name in end.differing(other) if name in end.arrays]
        if repr(again[metric]) != repr(metrics[metric]):
            what = f"{metric} {again[metric]:.6g}, not {metrics[metric]:.6g}"
        elif arrays:
            what = f"another {arrays[0]!r}"
        else:
            return
        raise TrainableError(
            f"expected {self._name} to go on from its state_dict as without it, found {what} in epoch "
            f"{state.epoch + 1}; let state_dict and load_state_dict hold all that training changes (optimizer, "
            "scheduler, generators of its own)"
        )


def _set_params(model: Any, name: str, before: Params, now: Params) -> None:
    """Tell a model what is in force from now on.

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
    taken = [each.name for each in known if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)]
    refused = [param for param in changed if param not in taken and not takes_any]
    if refused:
        raise ParamsError(
            f"{', '.join(refused)} cannot be changed while {name} is trained; its set_params takes "
            f"{', '.join(taken) or 'none'}"
        )
    method(**{param: now[param] for param in taken if param in now} | (changed if takes_any else {}))
