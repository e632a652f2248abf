"""Class scores of a trained model: the forward pass with running statistics instead of those of a mini-batch."""

from __future__ import annotations

import numpy as np

from caviar.nn.kernel import RUNNING_WEIGHT
from caviar.nn.layers import BATCH_NORM_EPSILON
from caviar.nn.network import Network

#: Examples at a time: the activations of usual layers stay in the cache.
BLOCK = 512


class Inference:
    """A model whose batch norm is folded into one scale and shift a unit.

    Args:
        network: the architecture.
        parameters: (P,).
        running: (2, U), weighted averages of mean and biased variance, not corrected for their start at 0.
        step: updates done; before the first one, hidden units keep their scale.
    """

    def __init__(self, network: Network, parameters: np.ndarray, running: np.ndarray, step: int) -> None:
        hidden, self._output = network.views(parameters)
        self._folded: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        correction = 1 / (1 - RUNNING_WEIGHT**step) if step else 1.0
        start = 0
        with np.errstate(all="ignore"):  # of a model that diverges
            for layer in hidden:
                units = slice(start, start + len(layer.gamma))
                start = units.stop
                mean, variance = running[:, units] * parameters.dtype.type(correction)  # H, H
                if not step:
                    variance = np.ones_like(variance)
                scale = layer.gamma / np.sqrt(variance + parameters.dtype.type(BATCH_NORM_EPSILON))  # H
                # gamma * (z - mean) / std + beta == scale * z + shift
                self._folded.append((layer.W, scale[:, None], (layer.beta - scale * mean)[:, None]))

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return the class scores of examples, (M, D) -> (C, M): the logarithms of the odds but for a constant."""
        a = x.T  # D,M
        with np.errstate(all="ignore"):
            for W, scale_column, shift_column in self._folded:
                a = W @ a  # H,M
                a *= scale_column
                a += shift_column
                np.maximum(a, 0, out=a)
            z: np.ndarray = self._output.W @ a  # C,M
            z += self._output.b[:, None]
        return z
