"""The Trainable seam: what the modes need to know of a model, whatever framework it is written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from caviar.nn.initial import Key
from caviar.records import Params, Reports
from caviar.training.dataset import Dataset
from caviar.training.state import Point

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Progress(Generic[State]):
    """What `advance` returns: the next state, a report for each epoch completed on the way, and how it ended."""

    state: State
    reports: Reports
    #: The epoch (counted from 1) in which the loss became NaN or infinite; None where it did not.
    diverged_at: int | None = None


class Trainable(Protocol[State]):
    """Makes the state of a model, advances it, and takes it apart for a checkpoint.

    Promises: a state is a value, which no method changes; what comes back depends on the arguments alone; stopping
    anywhere and going on gives the same as going through; `from_arrays(*to_arrays(state))` is the same state.
    """

    def initial(self, key: Key, params: Params, data: Dataset) -> State:
        """Return the state before any training."""

    def advance(self, state: State, params: Params, data: Dataset, until: int | Point) -> Progress[State]:
        """Train until so many epochs are completed in all, or to a point within an epoch."""

    def test(self, state: State, params: Params, data: Dataset) -> dict[str, float]:
        """Return metrics on the test part, for the one trial that was chosen."""

    def to_arrays(self, state: State) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Return a state as named arrays and text."""

    def from_arrays(self, arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> State:
        """Return the state that `to_arrays` took apart.

        Raises:
            KeyError, ValueError: these are not from `to_arrays`.
        """
