"""What may be changed while a model is trained: of the built-in network, and of a model of the user's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caviar.errors import ParamsError, RequestRejected
from caviar.records import Params, StudySpec
from caviar.training.hyperparameters import Hyperparameters, check_param
from caviar.training.source import settable

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

    def completed(self, params: Params) -> dict[str, Any]:
        return Hyperparameters.from_params(params).to_params()

    def settings(self, params: Params) -> dict[str, Any]:
        full = self.completed(params)
        return {name: full[name] for name in self.names}


@dataclass(frozen=True)
class _OfOwnModel(Adjustable):
    """Those that its `set_params` names; where that cannot be read, it says itself what it refuses."""

    params: Params
    names: tuple[str, ...]

    def check_value(self, name: str, value: Any) -> Any:
        now = self.params[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(now, float) and is_number:
            return float(value)
        if type(value) is not type(now):
            raise RequestRejected(f"{name} must be a {_kind(now)}, as {now!r} is, found {value!r}")
        return value

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
    return _OfOwnModel(params, tuple(name for name in params if named is None or name in named))


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


def _kind(value: Any) -> str:
    kinds = {bool: "truth value", int: "whole number", float: "number", str: "text"}
    return kinds.get(type(value), type(value).__name__)
