"""The state of a trial as a value: everything that training mutates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from caviar.nn.initial import Key

#: How far training has come: epochs completed, then mini-batches of the epoch under way. Points compare as tuples.
Point = tuple[int, int]

_COUNTS = ("epoch", "position", "batch", "step", "n_examples")


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


def state_to_arrays(state: TrainState) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return a state as named arrays and text, from which `state_from_arrays` makes the same bits again."""
    arrays = {"parameters": state.parameters, "moments": state.moments, "running": state.running}
    text = {
        "study_seed": str(state.key[0]),
        "trial_number": str(state.key[1]),
        "dtype": str(state.parameters.dtype),
        "loss_sum": state.loss_sum.hex(),  # exact, unlike most decimal forms
    }
    return arrays, text | {name: str(getattr(state, name)) for name in _COUNTS}


def state_from_arrays(arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> TrainState:
    """Return the state that `state_to_arrays` took apart.

    Raises:
        KeyError: something is missing.
        ValueError: a number cannot be read, or the arrays do not fit together.
    """
    parameters, moments, running = (arrays[name] for name in ("parameters", "moments", "running"))
    found = [parameters.shape, moments.shape, running.shape]
    if found != [(parameters.size,), (len(moments), parameters.size), (2, running.size // 2)]:
        raise ValueError(f"expected shapes (P,), (K, P) and (2, U), found {found}")
    if {str(array.dtype) for array in (parameters, moments, running)} != {text["dtype"]}:
        raise ValueError(f"expected arrays of dtype {text['dtype']!r}")
    return TrainState(
        key=(int(text["study_seed"]), int(text["trial_number"])),
        parameters=parameters,
        moments=moments,
        running=running,
        loss_sum=float.fromhex(text["loss_sum"]),
        **{name: int(text[name]) for name in _COUNTS},
    )
