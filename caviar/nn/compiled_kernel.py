"""The compiled kernel: hands the arrays to `compiled_loops.py`."""

from __future__ import annotations

import numpy as np

from caviar.nn.compiled_loops import OPTIMIZERS, evaluate, train
from caviar.nn.kernel import RUNNING_WEIGHT, Update
from caviar.nn.layers import BATCH_NORM_EPSILON
from caviar.nn.network import Network
from caviar.nn.optimizers import ADAM_BETA1, ADAM_BETA2, OPTIMIZER_EPSILON, RMSPROP_DECAY


class CompiledKernel:
    """The kernel that needs Numba."""

    name = "compiled"

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
        """See :meth:`caviar.nn.kernel.Kernel.train`."""
        settings = np.array(
            [
                update.learning_rate,
                update.momentum,
                update.l2,
                BATCH_NORM_EPSILON,
                RUNNING_WEIGHT,
                RMSPROP_DECAY,
                ADAM_BETA1,
                ADAM_BETA2,
                OPTIMIZER_EPSILON,
            ]
        )
        loss_sum, n_updates = train(
            np.array(network.layer_sizes),
            parameters,
            moments,
            running,
            step,
            _read_only(x),
            _read_only(y),
            _read_only(order),
            min(batch_size, len(order)),
            OPTIMIZERS[update.optimizer],
            settings,
            float(loss_sum),
        )
        return loss_sum, n_updates

    def evaluate(
        self, network: Network, parameters: np.ndarray, running: np.ndarray, step: int, x: np.ndarray, y: np.ndarray
    ) -> tuple[float, float]:
        """See :meth:`caviar.nn.kernel.Kernel.evaluate`."""
        # 0 stands for untrained: mean 0 and variance 1
        correction = 1 / (1 - RUNNING_WEIGHT**step) if step else 0.0
        loss_sum, n_correct = evaluate(
            np.array(network.layer_sizes),
            _read_only(parameters),
            _read_only(running),
            correction,
            BATCH_NORM_EPSILON,
            _read_only(x),
            _read_only(y),
        )
        return loss_sum / len(x), n_correct / len(x)

    def prepare(self, dtype: str) -> None:
        """See :meth:`caviar.nn.kernel.Kernel.prepare`: read the code from the disk, or compile for ten seconds."""
        network = Network((1, 1, 2))
        parameters, running = np.ones(network.n_parameters, dtype), np.zeros((2, network.n_units), dtype)
        moments = np.zeros((2, network.n_parameters), dtype)
        x, y, update = np.ones((2, 1), dtype), np.zeros(2, np.int64), Update("adam", 0.1, 0.9, 0.0)
        self.train(network, parameters, moments, running, 0, x, y, np.arange(2), 2, update)
        self.evaluate(network, parameters, running, 1, x, y)


def _read_only(array: np.ndarray) -> np.ndarray:
    """Return the array as the type that the functions are compiled for: contiguous, not to be written to."""
    flags = array.flags
    if flags.c_contiguous and not flags.writeable:
        return array
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
