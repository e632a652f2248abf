"""A small data set and tasks to train on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from caviar.execution.base import TrialTask
from caviar.training.dataset import Dataset, Examples


def make_examples(rng: np.random.Generator, n: int, n_features: int, n_classes: int) -> Examples:
    """Return examples whose class shows in their features."""
    y = np.arange(n) % n_classes
    x = rng.normal(size=(n, n_features))
    x[:, 0] += 3 * y
    return Examples(x.astype(np.float32), y.astype(np.int64))


@pytest.fixture
def data() -> Dataset:
    """60 + 20 + 20 examples of 4 features in 3 classes."""
    rng = np.random.default_rng(0)
    train, validation, test = (make_examples(rng, n, 4, 3) for n in (60, 20, 20))
    return Dataset("made", train, validation, test, ("a", "b", "c"), ("f0", "f1", "f2", "f3"), "f" * 64)


@pytest.fixture
def make_task() -> Callable[..., TrialTask]:
    """Make a task of two epochs; what is given beyond its number replaces the default."""

    def make(number: int = 0, params: dict[str, Any] | None = None, **given: Any) -> TrialTask:
        params = {"learning_rate": 0.05, "hidden_units": 8, "layers": 1, "batch_size": 16} | (params or {})
        return TrialTask(**({"number": number, "params": params, "key": (0, number), "until": 2} | given))

    return make
