"""What the params of a trial mean to the built-in network: names, types, bounds and defaults."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from caviar.errors import ParamsError
from caviar.nn.network import Network
from caviar.nn.optimizers import N_MOMENTS

MAX_LAYERS = 5


@dataclass(frozen=True)
class Range:
    """The values that a number may have."""

    kind: type
    low: float
    high: float = math.inf
    low_included: bool = True
    high_included: bool = True

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.kind is int and not isinstance(value, int):
            return False
        above = value >= self.low if self.low_included else value > self.low
        below = value <= self.high if self.high_included else value < self.high
        # not math.isfinite(), which fails on whole numbers that no float holds
        return above and below and abs(value) <= sys.float_info.max

    def __str__(self) -> str:
        left = "[" if self.low_included else "("
        right = "]" if self.high_included and self.high < math.inf else ")"
        return f"{'a whole number' if self.kind is int else 'a number'} in {left}{self.low:g}, {self.high:g}{right}"


#: Every param of the built-in network and what it may be.
PARAMS: Mapping[str, Range | tuple[str, ...]] = {
    "learning_rate": Range(float, 0, low_included=False),
    "momentum": Range(float, 0, 1, high_included=False),
    "hidden_units": Range(int, 1, 65536),
    "layers": Range(int, 0, MAX_LAYERS),
    "batch_size": Range(int, 2),
    "learning_rate_decay": Range(float, 0),
    "optimizer": tuple(N_MOMENTS),
    "l2": Range(float, 0),
}


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """The params of a trial, checked and completed.

    Attributes:
        learning_rate: alpha before decay.
        momentum: beta of the optimizer `momentum`; the others do not use it.
        hidden_units: units of each hidden layer, or all layers as in `"128-64"`.
        layers: number of hidden layers; 0 is softmax regression.
        batch_size: examples in a mini-batch; a larger one than the training set means all of it.
        learning_rate_decay: alpha / (1 + decay * epoch), epochs counted from 0.
        optimizer: sgd, momentum, rmsprop or adam.
        l2: the cost gets l2 / 2 * sum(W^2).
    """

    learning_rate: float = 0.01
    momentum: float = 0.9
    hidden_units: int | str = 64
    layers: int = 2
    batch_size: int = 64
    learning_rate_decay: float = 0.0
    optimizer: str = "momentum"
    l2: float = 0.0

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Hyperparameters:
        """Check params and fill in the defaults.

        Raises:
            ParamsError: a name is unknown, or a value has the wrong type or is out of bounds.
        """
        for name, value in params.items():
            check_param(name, value)
        # a whole number where any is allowed, as 1 for 1.0, would overflow elsewhere than a float does
        params = {name: float(value) if _is_float(name) else value for name, value in params.items()}
        sizes = params.get("hidden_units")
        if isinstance(sizes, str):
            layers = len(_parse_sizes(sizes))
            if params.get("layers", layers) != layers:
                raise ParamsError(
                    f"hidden_units = {sizes!r} names {layers} layers, but layers = {params['layers']!r}; "
                    "leave layers out of the space"
                )
            return cls(**{**params, "layers": layers})
        return cls(**params)

    def to_params(self) -> dict[str, float | int | str]:
        """Return all values by name."""
        return asdict(self)

    def network(self, n_features: int, n_classes: int) -> Network:
        """Return the architecture for D features and C classes."""
        if isinstance(self.hidden_units, str):
            hidden = _parse_sizes(self.hidden_units)
        else:
            hidden = (self.hidden_units,) * self.layers
        return Network((n_features, *hidden, n_classes))

    def learning_rate_at(self, epoch: int) -> float:
        """Return alpha / (1 + decay * epoch), with epochs counted from 0."""
        return self.learning_rate / (1 + self.learning_rate_decay * epoch)


def check_param(name: str, value: Any) -> None:
    """Check one param of the built-in network.

    Raises:
        ParamsError: the name is unknown, or the value has the wrong type or is out of bounds.
    """
    allowed = PARAMS.get(name)
    if allowed is None:
        close = get_close_matches(str(name), PARAMS, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ParamsError(f"unknown param {name!r} (known: {', '.join(PARAMS)}){hint}")
    if name == "hidden_units" and isinstance(value, str):
        _parse_sizes(value)
    elif value not in allowed:
        expected = allowed if isinstance(allowed, Range) else f"one of {', '.join(allowed)}"
        raise ParamsError(f"{name} must be {expected}, found {value!r}")


def is_limit(name: str, value: float) -> bool:
    """Return whether a param may have no value beyond this one."""
    allowed = PARAMS[name]
    return isinstance(allowed, Range) and value in (allowed.low, allowed.high)


def _is_float(name: str) -> bool:
    allowed = PARAMS[name]
    return isinstance(allowed, Range) and allowed.kind is float


def _parse_sizes(text: str) -> tuple[int, ...]:
    # more digits than any size has are not read: Python refuses the longest
    sizes = tuple(int(part) if part.isascii() and part.isdigit() and len(part) < 9 else 0 for part in text.split("-"))
    if len(sizes) > MAX_LAYERS or any(size not in PARAMS["hidden_units"] for size in sizes):
        raise ParamsError(
            f"hidden_units must be a whole number, or at most {MAX_LAYERS} of them as in '128-64', found {text!r}"
        )
    return sizes
