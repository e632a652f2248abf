"""The kernel seam: what trains and evaluates a model, behind plain arrays."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from caviar.errors import SettingsError
from caviar.nn.network import Network

#: Weight of the old value in the running mean and variance. They start at 0 and are corrected for it at evaluation,
#: by 1 - RUNNING_WEIGHT**step, so that they are true weighted averages from the first mini-batch on.
RUNNING_WEIGHT = 0.9

#: By name; the last one is the fastest.
KERNELS = ("numpy", "compiled")


@dataclass(frozen=True, slots=True)
class Update:
    """How the parameters are updated after each mini-batch."""

    optimizer: str
    learning_rate: float
    momentum: float
    #: The cost gets l2 / 2 * sum(W^2) over all weight matrices; reported losses are without it.
    l2: float


class Kernel(Protocol):
    """Trains and evaluates one model at a time.

    Promises: results depend on the arguments alone (on one machine, with one BLAS thread), whatever ran before, and
    training a range of mini-batches in two calls gives the same bits as in one.
    """

    name: str

    def train(
        self,
        network: Network,
        parameters: np.ndarray,
        moments: np.ndarray,
        running: np.ndarray,
        step: int,
        x: np.ndarray,
        y: np.ndarray,
        order: np.ndarray,
        batch_size: int,
        update: Update,
        loss_sum: float = 0.0,
    ) -> tuple[float, int]:
        """Train on consecutive mini-batches, in place.

        Args:
            network: the architecture.
            parameters: (P,), updated.
            moments: (K, P) of the optimizer, updated.
            running: (2, U), weighted averages of mean and biased variance, updated; not corrected for their start at 0.
            step: updates done so far.
            x: (N, D), an example a row.
            y: (N,), int64.
            order: indices of the examples to train on, cut into mini-batches of `batch_size`; the last may be
                smaller, and is left out where it is a single example.
            batch_size: M, at least 2.
            update: the optimizer and its settings.
            loss_sum: of the mini-batches of this epoch that came before, so that the sum is rounded alike however the
                epoch is cut into calls.

        Returns:
            `loss_sum` plus the losses of all mini-batches, each times its number of examples, in float64, and the
            number of updates done. A loss that is not finite ends training before its update, and makes the sum so.
        """

    def evaluate(
        self, network: Network, parameters: np.ndarray, running: np.ndarray, step: int, x: np.ndarray, y: np.ndarray
    ) -> tuple[float, float]:
        """Return the mean loss and the accuracy with the running statistics, over x (N, D) and y (N,)."""

    def prepare(self, dtype: str) -> None:
        """Do now, for models of this dtype, what would else delay the first of them."""


def kernel_name(name: str | None = None) -> str:
    """Return the kernel to use: the argument, else `CAVIAR_KERNEL`, else the fastest that is installed.

    Raises:
        SettingsError: there is no such kernel, or what it needs is not installed.
    """
    name = name or os.environ.get("CAVIAR_KERNEL")
    if not name:
        return "compiled" if _has_numba() else "numpy"
    if name not in KERNELS:
        raise SettingsError(f"unknown kernel {name!r} (known: {', '.join(KERNELS)}); set CAVIAR_KERNEL to one of them")
    if name == "compiled" and not _has_numba():
        raise SettingsError(
            "the compiled kernel needs Numba, which is not installed; pip install numba, or set CAVIAR_KERNEL=numpy"
        )
    return name


def choose_kernel(name: str | None = None) -> Kernel:
    """Return the kernel of that name; see :func:`kernel_name`."""
    if kernel_name(name) == "compiled":
        from caviar.nn.compiled_kernel import CompiledKernel

        return CompiledKernel()
    from caviar.nn.numpy_kernel import NumpyKernel

    return NumpyKernel()


def _has_numba() -> bool:
    """Return whether Numba is installed, without importing it."""
    return find_spec("numba") is not None


def is_compiling(name: str) -> bool:
    """Return whether a kernel has to be compiled before it can be used, which takes 10 to 30 s."""
    if name != "compiled":
        return False
    from caviar.nn.compiled_cache import is_kept  # with it comes Numba

    return not is_kept()
