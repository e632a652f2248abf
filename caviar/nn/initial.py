"""All randomness of training, from counters: nothing to carry along, nothing to lose."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import numpy as np

from caviar.errors import SettingsError
from caviar.nn.network import Network

#: (study seed, trial number): the key of every draw of a trial.
Key = tuple[int, int]

#: The largest study seed and trial number; both start at 0.
MAX_SEED = 2**63 - 1

# the highest counter word separates what is drawn, so that two purposes never share a stream
_WEIGHTS = 1
_ORDER = 2
_FUNCTION = 3


class _Generators(threading.local):
    """A generator for each thread, which is set anew for each purpose."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(0)
        self.generator = np.random.Generator(self.bits)
        self.key, self.counter = np.zeros(2, np.uint64), np.zeros(4, np.uint64)
        #: With nothing drawn yet.
        self.state: Any = {
            "bit_generator": "Philox",
            "state": {"counter": self.counter, "key": self.key},
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }


_THREAD = _Generators()


def initial_parameters(network: Network, key: Key, dtype: str) -> np.ndarray:
    """Return the initial flat vector, shape (P,): W ~ N(0, 2/D), gamma = 1, beta = 0, b = 0.

    float32 weights are the float64 ones, rounded.

    Raises:
        SettingsError: a number of the key is out of bounds.

    References:
        He et al. 2015, "Delving Deep into Rectifiers", equation 10.
    """
    generator = _generator(key, _WEIGHTS, 0)
    parameters = np.zeros(network.n_parameters, dtype)
    hidden, output = network.views(parameters)
    for layer in hidden:
        layer.W[...] = generator.standard_normal(layer.W.shape) * np.sqrt(2 / layer.W.shape[1])  # ~ N(0, 2/D)
        layer.gamma[...] = 1
    output.W[...] = generator.standard_normal(output.W.shape) * np.sqrt(2 / output.W.shape[1])
    return parameters


@lru_cache(maxsize=1)  # an epoch that is trained in several calls asks for it in each
def epoch_order(key: Key, epoch: int, n_examples: int) -> np.ndarray:
    """Return the order of examples in an epoch (counted from 0): a permutation of 0..N-1, int64, shape (N,), read-only.

    Raises:
        SettingsError: a number of the key is out of bounds.
    """
    order = _generator(key, _ORDER, epoch).permutation(n_examples)
    order.setflags(write=False)
    return order


def function_seed(key: Key, epoch: int = 0) -> int:
    """Return the seed of a trial that code of the user's trains, 0 to 2**31 - 1, which every framework takes.

    Args:
        key: (study seed, trial number).
        epoch: that is trained, counted from 1; 0 is the seed of the trial itself.

    Raises:
        SettingsError: a number of the key is out of bounds.
    """
    return int(_generator(key, _FUNCTION, epoch).integers(2**31))


def _generator(key: Key, purpose: int, epoch: int) -> np.random.Generator:
    seed, number = key
    if not (0 <= seed <= MAX_SEED and 0 <= number <= MAX_SEED):
        raise SettingsError(f"expected a study seed and a trial number from 0 to 2**63 - 1, found {key!r}")
    thread = _THREAD
    thread.key[0], thread.key[1] = seed, number
    thread.counter[2], thread.counter[3] = epoch, purpose
    # a new generator would ask the system for entropy, which takes longer than an epoch of some networks
    thread.bits.state = thread.state
    return thread.generator
