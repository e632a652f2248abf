"""The state of a trial as a value: everything that training mutates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caviar.nn.initial import Key

#: How far training has come: epochs completed, then mini-batches of the epoch under way. Points compare as tuples.
Point = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainState:
    """A model between two mini-batches. No generator is in it: randomness comes from `key` and the epoch."""

    #: (study seed, trial number); a branch keeps its parent's, so that it sees the same mini-batches.
    key: Key
    #: (P,), read-only as all arrays here.
    parameters: np.ndarray
    #: (K, P) of the optimizer.
    moments: np.ndarray
    #: (2, U), weighted averages of the mean and biased variance of each hidden unit, not corrected for starting at 0.
    running: np.ndarray
    #: Epochs completed.
    epoch: int = 0
    #: Examples of the epoch under way that lie behind.
    position: int = 0
    #: Mini-batches of the epoch under way that lie behind.
    batch: int = 0
    #: Updates done since the start.
    step: int = 0
    #: Sum of the losses of the epoch under way, each mini-batch's times its examples, and the number of these.
    loss_sum: float = 0.0
    n_examples: int = 0

    def __post_init__(self) -> None:
        for array in (self.parameters, self.moments, self.running):
            array.setflags(write=False)

    @property
    def point(self) -> Point:
        """(epochs completed, mini-batches of the next one done)."""
        return self.epoch, self.batch
