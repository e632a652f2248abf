"""The built-in network as a Trainable: the functions of `advance.py` with a kernel chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from caviar.nn.initial import Key
from caviar.nn.kernel import Kernel
from caviar.records import Params
from caviar.training.advance import advance, initial_state, test_metrics
from caviar.training.base import Progress
from caviar.training.dataset import Dataset
from caviar.training.state import Point, TrainState, state_from_arrays, state_to_arrays


@dataclass(frozen=True, slots=True)
class BatchNormNetwork:
    """Fully connected layers with batch norm and ReLU, softmax on top; see `Hyperparameters` for its params."""

    kernel: Kernel

    def initial(self, key: Key, params: Params, data: Dataset) -> TrainState:
        """See :meth:`Trainable.initial`."""
        return initial_state(key, params, data)

    def advance(self, state: TrainState, params: Params, data: Dataset, until: int | Point) -> Progress[TrainState]:
        """See :meth:`Trainable.advance`."""
        return advance(state, params, data, until, kernel=self.kernel)

    def test(self, state: TrainState, params: Params, data: Dataset) -> dict[str, float]:
        """See :meth:`Trainable.test`."""
        return test_metrics(state, params, data, kernel=self.kernel)

    def to_arrays(self, state: TrainState) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """See :meth:`Trainable.to_arrays`."""
        return state_to_arrays(state)

    def from_arrays(self, arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> TrainState:
        """See :meth:`Trainable.from_arrays`."""
        return state_from_arrays(arrays, text)
