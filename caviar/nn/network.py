"""The architecture, and how one flat vector holds all parameters of a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from caviar.errors import ShapeError


class HiddenLayer(NamedTuple):
    """Views of one batch-normalised layer: it has no bias, since the mean subtraction would remove it."""

    W: np.ndarray  # H,D
    gamma: np.ndarray  # H
    beta: np.ndarray  # H


class OutputLayer(NamedTuple):
    """Views of the softmax layer."""

    W: np.ndarray  # C,D
    b: np.ndarray  # C


@dataclass(frozen=True)
class Network:
    """A fully connected network: input, hidden layers with batch norm and ReLU, softmax output.

    Args:
        layer_sizes: D, then H of each hidden layer, then C; two numbers are softmax regression.

    Raises:
        ShapeError: there are fewer than two sizes, or one below 1.
    """

    layer_sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.layer_sizes) < 2 or min(self.layer_sizes) < 1:
            raise ShapeError(f"layer_sizes must be at least two positive sizes, found {self.layer_sizes!r}")

    @cached_property
    def n_parameters(self) -> int:
        """P, the length of the flat vector."""
        *hidden, (D, C) = list(zip(self.layer_sizes, self.layer_sizes[1:], strict=False))
        return sum(H * D + 2 * H for D, H in hidden) + C * D + C

    @cached_property
    def n_units(self) -> int:
        """U, hidden units of all layers: the length of each running statistic."""
        return sum(self.layer_sizes[1:-1])

    def views(self, parameters: np.ndarray) -> tuple[list[HiddenLayer], OutputLayer]:
        """Return the layers of a flat vector (P,), as views that share its memory.

        The order is W, gamma, beta of each hidden layer from the bottom up, then W and b of the output.

        Raises:
            ShapeError: the vector is not (P,).
        """
        if parameters.shape != (self.n_parameters,):
            raise ShapeError(f"parameters must have shape ({self.n_parameters},), found {parameters.shape}")
        start = 0

        def take(*shape: int) -> np.ndarray:
            nonlocal start
            size = int(np.prod(shape))
            start += size
            return parameters[start - size : start].reshape(shape)

        pairs = list(zip(self.layer_sizes, self.layer_sizes[1:], strict=False))
        hidden = [HiddenLayer(W=take(H, D), gamma=take(H), beta=take(H)) for D, H in pairs[:-1]]
        D, C = pairs[-1]
        return hidden, OutputLayer(W=take(C, D), b=take(C))
