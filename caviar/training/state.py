"""The state of a trial as a value: everything that training mutates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from caviar.nn.initial import Key
from caviar.records import Params
from caviar.training.values import LAYOUT

#: How far training has come: epochs completed, then mini-batches of the epoch under way. Points compare as tuples.
Point = tuple[int, int]

_COUNTS = ("epoch", "position", "batch", "step", "n_examples")


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """A model between two mini-batches. No generator is in it: randomness comes from `key` and the epoch."""

    #: (study seed, trial number); a branch keeps its parent's, so that it sees the same mini-batches.
    key: Key
    #: Epochs completed.
    epoch: int = 0
    #: Examples of the epoch under way that lie behind.
    position: int = 0
    #: Mini-batches of the epoch under way that lie behind.
    batch: int = 0
    #: Updates done since the start; of a model of the user's own, epochs.
    step: int = 0

    @property
    def point(self) -> Point:
        """(epochs completed, mini-batches of the next one done)."""
        return self.epoch, self.batch

    def named_arrays(self) -> Mapping[str, np.ndarray]:
        """Return its arrays by name, which tell two states apart."""
        raise NotImplementedError

    def differing(self, other: State) -> list[str]:
        """Return the names of the arrays that are not the same bits in both states."""
        mine, others = self.named_arrays(), other.named_arrays()
        return [name for name in {**mine, **others} if not _same_bits(mine.get(name), others.get(name))]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainState(State):
    """The state of the built-in network."""

    #: (P,), read-only as all arrays here.
    parameters: np.ndarray
    #: (K, P) of the optimizer.
    moments: np.ndarray
    #: (2, U), weighted averages of the mean and biased variance of each hidden unit, not corrected for starting at 0.
    running: np.ndarray
    #: Sum of the losses of the epoch under way, each mini-batch's times its examples, and the number of these.
    loss_sum: float = 0.0
    n_examples: int = 0

    def __post_init__(self) -> None:
        for array in (self.parameters, self.moments, self.running):
            array.setflags(write=False)

    def named_arrays(self) -> Mapping[str, np.ndarray]:
        """See :meth:`State.named_arrays`."""
        return {"parameters": self.parameters, "moments": self.moments, "running": self.running}


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnState(State):
    """The state of a model of the user's own, between two epochs: what its `state_dict` gave, taken apart."""

    #: As :func:`caviar.training.values.pack` gives them, read-only.
    arrays: Mapping[str, np.ndarray]
    layout: str
    #: That it was trained with last: where others are in force, the model is told.
    params: Params
    #: Names of what it reports, once it has.
    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for array in self.arrays.values():
            array.setflags(write=False)

    def named_arrays(self) -> Mapping[str, np.ndarray]:
        """See :meth:`State.named_arrays`; with the numbers and texts that are no arrays."""
        return {**self.arrays, LAYOUT: np.frombuffer(self.layout.encode(), np.uint8)}


def state_to_arrays(state: State) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return a state as named arrays and text, from which `state_from_arrays` makes the same bits again."""
    text = {"study_seed": str(state.key[0]), "trial_number": str(state.key[1])}
    if isinstance(state, OwnState):
        own = {"trained_with": json.dumps(dict(state.params)), "metrics": json.dumps(state.metrics)}
        return dict(state.named_arrays()), {**text, **own, "epoch": str(state.epoch)}
    assert isinstance(state, TrainState)
    text |= {"dtype": str(state.parameters.dtype), "loss_sum": state.loss_sum.hex()}  # exact, unlike most decimal forms
    return dict(state.named_arrays()), text | {name: str(getattr(state, name)) for name in _COUNTS}


def state_from_arrays(arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> State:
    """Return the state that `state_to_arrays` took apart.

    Raises:
        KeyError: something is missing.
        ValueError: a number cannot be read, or the arrays do not fit together.
    """
    key = (int(text["study_seed"]), int(text["trial_number"]))
    if "trained_with" in text:
        epoch = int(text["epoch"])
        return OwnState(
            key=key,
            arrays={name: array for name, array in arrays.items() if name != LAYOUT},
            layout=arrays[LAYOUT].tobytes().decode(),
            params=json.loads(text["trained_with"]),
            epoch=epoch,
            step=epoch,
            metrics=tuple(json.loads(text["metrics"])),
        )
    parameters, moments, running = (arrays[name] for name in ("parameters", "moments", "running"))
    found = [parameters.shape, moments.shape, running.shape]
    if found != [(parameters.size,), (len(moments), parameters.size), (2, running.size // 2)]:
        raise ValueError(f"expected shapes (P,), (K, P) and (2, U), found {found}")
    if {str(array.dtype) for array in (parameters, moments, running)} != {text["dtype"]}:
        raise ValueError(f"expected arrays of dtype {text['dtype']!r}")
    return TrainState(
        key=key,
        parameters=parameters,
        moments=moments,
        running=running,
        loss_sum=float.fromhex(text["loss_sum"]),
        **{name: int(text[name]) for name in _COUNTS},
    )


def _same_bits(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
