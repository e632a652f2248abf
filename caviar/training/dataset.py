"""What a model trains on: three parts of examples, ready for the kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Examples:
    """Features and true classes of N examples.

    Attributes:
        x: standardised features, float32 or float64, shape (N, D), an example a row, C-contiguous.
        y: index of the true class, int64, shape (N,).
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set split in three; `validation` chooses between trials, `test` judges the one that is chosen."""

    name: str
    train: Examples
    validation: Examples
    test: Examples
    #: Names of the classes, by index.
    classes: tuple[str, ...]
    #: Names of the D features after encoding.
    features: tuple[str, ...]
    #: Hash of what was loaded, before the split and whatever the dtype.
    fingerprint: str

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.train.x.shape[1])

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.classes)

    @property
    def most_frequent(self) -> tuple[float, str]:
        """The accuracy on the validation part of always guessing the training part's most frequent class; its name."""
        guess = int(np.bincount(self.train.y).argmax())
        return float(np.mean(self.validation.y == guess)), self.classes[guess]

    @property
    def dtype(self) -> str:
        """`float32` or `float64`."""
        return str(self.train.x.dtype)
