"""The maths of `layers.py` in NumPy: every buffer made once per call, every array read as rarely as possible."""

from __future__ import annotations

import itertools

import numpy as np

from caviar.nn.inference import BLOCK, Inference
from caviar.nn.kernel import RUNNING_WEIGHT, Update
from caviar.nn.layers import BATCH_NORM_EPSILON
from caviar.nn.network import Network
from caviar.nn.optimizers import UPDATES


class NumpyKernel:
    """The kernel that needs NumPy alone."""

    name = "numpy"

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
        gradient = np.empty_like(parameters)
        scratch = np.empty_like(parameters)
        apply_update = UPDATES[update.optimizer]
        weights = _weights(network, parameters)
        weight_gradients = _weights(network, gradient)
        passes: dict[int, _Pass] = {}
        n_updates = 0
        with np.errstate(all="ignore"):  # overflow ends in a loss that is not finite, which is looked for
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                M = len(batch)
                if M < 2:
                    break
                if M not in passes:
                    passes[M] = _Pass(network, parameters, gradient, running, M)
                loss = passes[M].loss_and_gradient(x, y, batch)
                loss_sum += loss * M
                if not np.isfinite(loss):
                    return loss_sum, n_updates
                if update.l2:
                    for W, d_W in zip(weights, weight_gradients, strict=True):
                        d_W += update.l2 * W
                n_updates += 1
                apply_update(
                    parameters, gradient, moments, scratch, step + n_updates, update.learning_rate, update.momentum
                )
        return loss_sum, n_updates

    def evaluate(
        self, network: Network, parameters: np.ndarray, running: np.ndarray, step: int, x: np.ndarray, y: np.ndarray
    ) -> tuple[float, float]:
        """See :meth:`caviar.nn.kernel.Kernel.evaluate`."""
        with np.errstate(all="ignore"):
            inference = Inference(network, parameters, running, step)
            loss_sum, n_correct = 0.0, 0
            for first in range(0, len(x), BLOCK):
                labels = y[first : first + BLOCK]  # M
                z = inference.scores(x[first : first + BLOCK])  # C,M
                n_correct += int(np.count_nonzero(z.argmax(axis=0) == labels))
                z -= z.max(axis=0)
                true = z[labels, np.arange(len(labels))]  # M
                np.exp(z, out=z)
                loss_sum += float((np.log(z.sum(axis=0)) - true).sum(dtype=np.float64))
        return loss_sum / len(x), n_correct / len(x)

    def prepare(self, dtype: str) -> None:
        """See :meth:`caviar.nn.kernel.Kernel.prepare`."""


def _weights(network: Network, parameters: np.ndarray) -> list[np.ndarray]:
    hidden, output = network.views(parameters)
    return [*(layer.W for layer in hidden), output.W]


class _HiddenBuffers:
    """What one hidden layer needs for one size of mini-batch."""

    def __init__(self, H: int, M: int, dtype: np.dtype) -> None:
        self.z_norm = np.empty((H, M), dtype)  # H,M
        self.a = np.empty((H, M), dtype)  # H,M
        self.d_a = np.empty((H, M), dtype)  # H,M, and d_z in the same place
        self.scratch = np.empty((H, M), dtype)  # H,M
        self.active = np.empty((H, M), np.bool_)  # H,M
        self.mean = np.empty(H, dtype)  # H
        self.variance = np.empty(H, dtype)  # H
        self.inverse_std = np.empty(H, dtype)  # H


class _Pass:
    """Forward and backward pass over mini-batches of M examples, writing the gradient of a flat vector."""

    def __init__(
        self, network: Network, parameters: np.ndarray, gradient: np.ndarray, running: np.ndarray, M: int
    ) -> None:
        dtype = parameters.dtype
        D, *sizes, C = network.layer_sizes
        self.hidden, self.output = network.views(parameters)
        self.d_hidden, self.d_output = network.views(gradient)
        self.buffers = [_HiddenBuffers(H, M, dtype) for H in sizes]
        bounds = np.cumsum([0, *sizes]).tolist()
        self.running = [running[:, first:last] for first, last in itertools.pairwise(bounds)]
        self.x = np.empty((M, D), dtype)  # M,D
        self.y = np.empty(M, np.int64)  # M
        self.z = np.empty((C, M), dtype)  # C,M, later the probabilities, later d_z
        self.examples = np.arange(M)
        # a product with a vector of ones is several times faster than sum(axis=1) (benchmarks/README.md)
        self.ones = np.ones(M, dtype)
        self.mean_of = np.full(M, 1 / M, dtype)
        self.sum_classes = np.ones(C, dtype)
        self.M = M
        self.keep = dtype.type(RUNNING_WEIGHT)
        self.renew = dtype.type(1 - RUNNING_WEIGHT)
        self.epsilon = dtype.type(BATCH_NORM_EPSILON)

    def loss_and_gradient(self, x: np.ndarray, y: np.ndarray, batch: np.ndarray) -> float:
        """Gather the mini-batch, write the gradient of its mean loss, and return that loss."""
        # mode="clip" lets take() write to `out` without a buffer; the indices are in range
        np.take(x, batch, axis=0, out=self.x, mode="clip")
        np.take(y, batch, out=self.y, mode="clip")
        loss = self._forward()
        self._backward()
        return loss

    def _forward(self) -> float:
        a = self.x.T  # D,M
        for layer, buffer, running in zip(self.hidden, self.buffers, self.running, strict=True):
            z = np.matmul(layer.W, a, out=buffer.z_norm)  # H,M
            np.matmul(z, self.mean_of, out=buffer.mean)  # H
            z -= buffer.mean[:, None]
            np.multiply(z, z, out=buffer.scratch)
            np.matmul(buffer.scratch, self.mean_of, out=buffer.variance)  # H
            running *= self.keep
            running[0] += self.renew * buffer.mean
            running[1] += self.renew * buffer.variance
            np.add(buffer.variance, self.epsilon, out=buffer.inverse_std)
            np.sqrt(buffer.inverse_std, out=buffer.inverse_std)
            np.reciprocal(buffer.inverse_std, out=buffer.inverse_std)
            z *= buffer.inverse_std[:, None]  # now z_norm
            a = np.multiply(z, layer.gamma[:, None], out=buffer.a)  # H,M
            a += layer.beta[:, None]
            np.maximum(a, 0, out=a)
        z = np.matmul(self.output.W, a, out=self.z)  # C,M
        z += self.output.b[:, None]
        z -= z.max(axis=0)  # exp() cannot overflow
        true = z[self.y, self.examples]  # M
        np.exp(z, out=z)
        total = np.matmul(self.sum_classes, z)  # M
        z /= total  # now the probabilities
        return float((np.log(total) - true) @ self.mean_of)

    def _backward(self) -> None:
        d_z = self.z  # C,M
        d_z[self.y, self.examples] -= 1
        d_z *= self.mean_of
        below = self.buffers[-1].a if self.buffers else self.x.T  # D,M
        np.matmul(d_z, below.T, out=self.d_output.W)
        np.matmul(d_z, self.ones, out=self.d_output.b)
        W = self.output.W
        for index in reversed(range(len(self.hidden))):
            layer, gradient, buffer = self.hidden[index], self.d_hidden[index], self.buffers[index]
            d = np.matmul(W.T, d_z, out=buffer.d_a)  # H,M
            np.greater(buffer.a, 0, out=buffer.active)
            d *= buffer.active  # d_z_tilde
            np.multiply(d, buffer.z_norm, out=buffer.scratch)
            np.matmul(buffer.scratch, self.ones, out=gradient.gamma)  # H
            np.matmul(d, self.ones, out=gradient.beta)  # H
            # batch_norm_backward of layers.py, in place
            d -= (gradient.beta / self.M)[:, None]
            np.multiply(buffer.z_norm, (gradient.gamma / self.M)[:, None], out=buffer.scratch)
            d -= buffer.scratch
            d *= (layer.gamma * buffer.inverse_std)[:, None]
            below = self.buffers[index - 1].a if index else self.x.T  # D,M
            np.matmul(d, below.T, out=gradient.W)
            d_z, W = d, layer.W
