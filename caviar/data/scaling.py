"""Features on one scale: mean 0 and standard deviation 1 in the training part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caviar.data.raw import blocks
from caviar.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """How features are standardised: `(x * scale - mean) / std`, each of shape (D,), computed in float64.

    The variance is the biased one (divided by the number of training rows). A feature that is constant in training
    keeps its unit: only the constant is subtracted, so it is 0 throughout training.
    """

    #: Powers of two that keep squares from overflowing: they change no bit of the result.
    scale: np.ndarray
    #: Of `x * scale`, as is `std`.
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, rows: np.ndarray) -> Scaling:
        """Return the scaling by some rows of features, (N, D), alone."""
        low = np.full(x.shape[1], np.inf)
        high = np.full(x.shape[1], -np.inf)
        for block in blocks(x, rows):
            np.minimum(low, block.min(axis=0), out=low)
            np.maximum(high, block.max(axis=0), out=high)
        constant = low == high
        # Squares of 1e200 overflow: bring each feature to [-1, 1] first.
        _, exponent = np.frexp(np.maximum(np.abs(low), np.abs(high)))
        scale = np.where(constant, 1.0, np.ldexp(1.0, np.clip(-exponent, -1022, 1023)))

        mean = np.zeros(x.shape[1])
        for block in blocks(x, rows):
            block *= scale
            mean += block.sum(axis=0)
        mean /= len(rows)
        # The mean of equal numbers may differ from them in the last bit, which dividing by a tiny std would blow
        # up.
        mean = np.where(constant, low, mean)

        variance = np.zeros(x.shape[1])
        for block in blocks(x, rows):
            block *= scale
            block -= mean
            block *= block
            variance += block.sum(axis=0)
        std = np.sqrt(variance / len(rows))
        std[constant | (std == 0.0)] = 1.0
        return cls(scale, mean, std)

    def apply(self, x: np.ndarray, rows: np.ndarray | None, features: tuple[str, ...], dtype: str) -> np.ndarray:
        """Standardise rows of features.

        Args:
            x: features, any real or bool dtype, shape (N, D).
            rows: indices of the rows, in the order of the result; all where None.
            features: D names, for messages.
            dtype: `float32` or `float64`, the dtype of the result.

        Returns:
            A C-contiguous read-only array of shape (rows, D).

        Raises:
            DataError: a value is so far from the training part's that the dtype cannot hold it.
        """
        out = np.empty((len(x) if rows is None else len(rows), x.shape[1]), dtype=dtype)
        start = 0
        for block in blocks(x, rows):
            with np.errstate(over="ignore"):  # reported below, by column
                block *= self.scale
                block -= self.mean
                block /= self.std
                done = out[start : start + len(block)]
                done[...] = block
            finite = np.isfinite(done).all(axis=0)
            if not finite.all():
                column = features[int(np.argmin(finite))]
                raise DataError(
                    f"expected column {column!r} to fit {dtype} once standardised by the training part, "
                    "found a value too far out; drop that row or transform the column"
                )
            start += len(block)
        out.flags.writeable = False
        return out
