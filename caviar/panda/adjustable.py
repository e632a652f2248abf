"""What may be changed while a model is trained: of the built-in network, and of a model of the user's own."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caviar.errors import ParamsError, RequestRejected, SettingsError
from caviar.records import Params, StudySpec
from caviar.space import Categorical, Domain, Float, Int, SearchSpace, Value
from caviar.training.hyperparameters import Hyperparameters, check_param
from caviar.training.source import is_function, settable

_MAX_EPOCHS = 10**9


class Adjustable(ABC):
    """The settings of one trial that is babysat; `epochs`, how many are trained in all, is one of every trial's."""

    #: What `set` may change, but `epochs`.
    names: tuple[str, ...]

    def check(self, arguments: Mapping[str, Any], *, epochs_done: int = 0) -> dict[str, Any]:
        """Return the arguments of `set` with their types put right.

        Raises:
            RequestRejected: there is none, a name is not adjustable, or a value is out of bounds or of the wrong type.
        """
        listed = ", ".join((*self.names, "epochs"))
        if not arguments:
            raise RequestRejected(f"set needs NAME=VALUE, with a NAME of {listed}")
        checked: dict[str, Any] = {}
        for name, value in arguments.items():
            if name == "epochs":
                checked[name] = check_epochs(value, epochs_done)
            elif name in self.names:
                checked[name] = self.check_value(name, value)
            else:
                raise RequestRejected(f"{name!r} cannot be changed while a model is trained; {listed} can")
        return checked

    @abstractmethod
    def check_value(self, name: str, value: Any) -> Any:
        """Return a value of one of the names, with its type put right.

        Raises:
            RequestRejected: it is out of bounds or of the wrong type.
        """

    @abstractmethod
    def is_number(self, name: str) -> bool:
        """Return whether what one of the names stands for can be divided: any number, not only a whole one."""

    @abstractmethod
    def completed(self, params: Params) -> dict[str, Any]:
        """Return all params in force, with those that are the default."""

    @abstractmethod
    def settings(self, params: Params) -> dict[str, Any]:
        """Return those params that are shown as settings."""


class _OfNetwork(Adjustable):
    names = ("learning_rate", "momentum", "l2", "learning_rate_decay", "batch_size")

    def check_value(self, name: str, value: Any) -> Any:
        try:
            check_param(name, value)
        except ParamsError as error:
            raise RequestRejected(str(error)) from error
        return value if name == "batch_size" else float(value)

    def is_number(self, name: str) -> bool:
        return name != "batch_size"

    def completed(self, params: Params) -> dict[str, Any]:
        return Hyperparameters.from_params(params).to_params()

    def settings(self, params: Params) -> dict[str, Any]:
        full = self.completed(params)
        return {name: full[name] for name in self.names}


@dataclass(frozen=True)
class _OfOwnModel(Adjustable):
    """Those that its `set_params` names; where that cannot be read, it says itself what it refuses."""

    names: tuple[str, ...]
    domains: Mapping[str, Domain | Value]

    def check_value(self, name: str, value: Any) -> Any:
        return typed(name, value, self.domains[name])

    def is_number(self, name: str) -> bool:
        kinds = _kinds(self.domains[name])
        return float in kinds and kinds <= {int, float}

    def completed(self, params: Params) -> dict[str, Any]:
        return dict(params)

    def settings(self, params: Params) -> dict[str, Any]:
        return dict(params)


#: Of every trial of the built-in network.
OF_NETWORK: Adjustable = _OfNetwork()


def adjustable_of(spec: StudySpec, params: Params) -> Adjustable:
    """Return what may be changed of a trial with these params."""
    if spec.trainable is None:
        return OF_NETWORK
    named = settable(spec.trainable)
    domains: dict[str, Domain | Value] = {name: value for name, value in params.items() if isinstance(value, Value)}
    domains |= SearchSpace.from_dict(spec.space)  # an earlier version may have had params that it has not
    return _OfOwnModel(tuple(name for name in params if named is None or name in named), domains)


def refuse_function(spec: StudySpec) -> None:
    """Refuse to babysit trials of a function, which keeps its models to itself.

    Raises:
        SettingsError: the file itself says that it is one.
    """
    if spec.trainable is not None and is_function(spec.trainable):
        raise SettingsError(
            f"study {spec.name!r} is trained by {spec.trainable.name}, a function that trains in one go: only the "
            "built-in network, and models of a class with train_epoch, state_dict and load_state_dict, are babysat; "
            "see docs/trainables.md"
        )


def check_epochs(value: Any, done: int) -> int | None:
    """Return how many epochs are to be trained in all; None is until somebody stops it.

    Raises:
        RequestRejected: it is no whole number, or fewer than are done.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_EPOCHS:
        raise RequestRejected(f"epochs must be a whole number from 1 to {_MAX_EPOCHS}, found {value!r}")
    if value < done:
        raise RequestRejected(f"epochs is how many are trained in all: {done} are done already, found {value}")
    return value


def typed(name: str, value: Any, domain: Domain | Value) -> Any:
    """Return a param of a user's own model as trials of a sweep have it: a number as a float, where any is one.

    It need not lie in the domain, but is of its kind.

    Raises:
        RequestRejected: it is of another kind, or no finite number.
    """
    kinds = _kinds(domain)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if is_number and int in kinds and value == int(value):
        return int(value)
    if is_number and float in kinds:
        return float(value)
    if isinstance(value, str) and str in kinds:
        return value
    expected = "a number" if float in kinds else "a whole number" if int in kinds else "a text"
    raise RequestRejected(f"{name} must be {expected}, found {value!r:.40}")


def _kinds(domain: Domain | Value) -> set[type]:
    """Return the types of a domain's values."""
    if isinstance(domain, Categorical):
        return {type(choice) for choice in domain.choices}
    return {float if isinstance(domain, Float) else int if isinstance(domain, Int) else type(domain)}
