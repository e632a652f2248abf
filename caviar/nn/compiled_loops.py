"""The maths of `layers.py` as two compiled functions, which train and evaluate without returning to Python.

Every constant of a file that is not of the compiled kernel is an argument, because the code that is kept on disk knows
the content of these files alone. Products are fused with additions where `fused` says so. A literal such as 0.5 is
float64 and would turn a float32 loop into float64: constants are cast with `dtype.type` before a loop.
"""

from __future__ import annotations

import math

import numpy as np

from caviar.nn.compiled_batch_norm import normalise, normalise_backward
from caviar.nn.compiled_cache import cached, compiled
from caviar.nn.compiled_products import LISTED, PANEL, PLAIN, TURNED, product
from caviar.nn.compiled_softmax import count_correct, cross_entropy, cross_entropy_backward
from caviar.nn.compiled_vectors import fused, writable

Array = np.ndarray

#: Examples evaluated at a time: the activations of usual layers stay in the cache.
_EVALUATION_BLOCK = 128

#: Codes of the optimizers, by name.
OPTIMIZERS = {"sgd": 0, "momentum": 1, "rmsprop": 2, "adam": 3}
_SGD, _MOMENTUM, _RMSPROP = OPTIMIZERS["sgd"], OPTIMIZERS["momentum"], OPTIMIZERS["rmsprop"]

# what `settings` holds
_LEARNING_RATE, _MOMENTUM_BETA, _L2, _BATCH_NORM_EPSILON, _RUNNING_WEIGHT = 0, 1, 2, 3, 4
_RMSPROP_DECAY, _ADAM_BETA1, _ADAM_BETA2, _OPTIMIZER_EPSILON = 5, 6, 7, 8


@compiled
def _padded(n: int) -> int:
    """Return how far apart rows of n are: so that each starts with a line of the cache, but not all with the same."""
    rounded = (n + 15) // 16 * 16
    return rounded + 16 if rounded % 512 == 0 else rounded


@compiled
def _aligned(n_rows: int, row: int, like: Array) -> Array:
    """Return an empty array (n_rows, row) that starts with a line of the cache, which vectors then do not straddle."""
    buffer = np.empty(n_rows * row + 64 // like.itemsize, like.dtype)
    start = (-buffer.ctypes.data) % 64 // like.itemsize
    return buffer[start : start + n_rows * row].reshape((n_rows, row))


@compiled
def _update(
    optimizer: int,
    parameters: Array,
    gradient: Array,
    v: Array,
    s: Array,
    l2: float,
    step: int,
    settings: Array,
) -> None:
    """Update some parameters from their gradient, all (p,), reading each array once.

    v and s are the moments as in `optimizers.py`; those that an optimizer does not have are not touched.
    """
    number = parameters.dtype.type
    decay = number(l2)
    if optimizer == _SGD:
        alpha = number(settings[_LEARNING_RATE])
        for i in range(len(parameters)):
            parameters[i] -= alpha * fused(decay, parameters[i], gradient[i])
    elif optimizer == _MOMENTUM:
        alpha = number(settings[_LEARNING_RATE])
        beta, rest = number(settings[_MOMENTUM_BETA]), number(1 - settings[_MOMENTUM_BETA])
        for i in range(len(parameters)):
            velocity = fused(beta, v[i], rest * fused(decay, parameters[i], gradient[i]))
            v[i] = velocity
            parameters[i] -= alpha * velocity
    elif optimizer == _RMSPROP:
        alpha, epsilon = number(settings[_LEARNING_RATE]), number(settings[_OPTIMIZER_EPSILON])
        beta, rest = number(settings[_RMSPROP_DECAY]), number(1 - settings[_RMSPROP_DECAY])
        for i in range(len(parameters)):
            g = fused(decay, parameters[i], gradient[i])
            square = fused(beta, s[i], rest * (g * g))
            s[i] = square
            parameters[i] -= alpha * g / (math.sqrt(square) + epsilon)
    else:
        # as in optimizers.py: both bias corrections are in alpha and epsilon
        correction = math.sqrt(1 - settings[_ADAM_BETA2] ** step)
        alpha = number(settings[_LEARNING_RATE] * correction / (1 - settings[_ADAM_BETA1] ** step))
        epsilon = number(settings[_OPTIMIZER_EPSILON] * correction)
        beta1, rest1 = number(settings[_ADAM_BETA1]), number(1 - settings[_ADAM_BETA1])
        beta2, rest2 = number(settings[_ADAM_BETA2]), number(1 - settings[_ADAM_BETA2])
        for i in range(len(parameters)):
            g = fused(decay, parameters[i], gradient[i])
            velocity = fused(beta1, v[i], rest1 * g)
            square = fused(beta2, s[i], rest2 * (g * g))
            v[i] = velocity
            s[i] = square
            parameters[i] -= alpha * velocity / (math.sqrt(square) + epsilon)


@cached
def train(
    sizes: Array,
    parameters: Array,
    moments: Array,
    running: Array,
    step: int,
    x: Array,
    y: Array,
    order: Array,
    batch_size: int,
    optimizer: int,
    settings: Array,
    loss_sum: float,
) -> tuple[float, int]:
    """Train on consecutive mini-batches, in place; see :meth:`caviar.nn.kernel.Kernel.train`.

    Args:
        sizes: D, H of each hidden layer, C; int64.
        parameters, moments, running, step, x, y, order, batch_size, loss_sum: as there.
        optimizer: one of `OPTIMIZERS`.
        settings: float64, in the order of the indices above.
    """
    number = parameters.dtype.type
    # not literals: for each one that a function is called with, Numba would compile it once more
    start, next_to = np.int64(0), np.int64(1)
    plain, listed, turned = np.int64(PLAIN), np.int64(LISTED), np.int64(TURNED)
    n_layers, D, C = len(sizes) - 2, sizes[0], sizes[-1]
    batch_size = min(batch_size, len(order))
    n_units, widest, largest = 0, C, C * sizes[-2]
    for layer in range(n_layers):
        H = sizes[layer + 1]
        n_units += H
        widest = max(widest, H)
        largest = max(largest, H * sizes[layer])

    row = _padded(batch_size)  # the distance of rows of M
    batch, batch_y = np.empty(batch_size, np.int64), np.empty(batch_size, np.int64)  # M
    z_flat = _aligned(n_units, row, parameters).reshape(-1)  # z of each hidden layer, then z_norm: U,M
    a_flat = _aligned(n_units, row, parameters).reshape(-1)  # U,M
    units = np.arange(widest)
    means, inverse_stds = np.empty(n_units, parameters.dtype), np.empty(n_units, parameters.dtype)  # U
    # two gradients of one layer's activations: one is read while the other is written
    gradients = _aligned(2 * widest, row, parameters).reshape((2, widest, row))  # 2,H,M
    sums = _aligned(2, row, parameters)
    highest, total = sums[0], sums[1]  # M
    d_weights = _aligned(1, largest, parameters)[0]  # of one layer
    panel = _aligned(1, PANEL // parameters.itemsize, parameters)[0]
    d_units = np.empty(2 * widest, parameters.dtype)  # of gamma and beta of one layer, or of b
    x_flat = writable(x.reshape(-1))
    d_flat = gradients.reshape(-1)
    epsilon = number(settings[_BATCH_NORM_EPSILON])
    keep = number(settings[_RUNNING_WEIGHT])
    l2 = settings[_L2]
    v = moments[0] if len(moments) > 0 else parameters
    s = moments[len(moments) - 1] if len(moments) > 0 else parameters

    n_updates = 0
    for first in range(0, len(order), batch_size):
        M = min(batch_size, len(order) - first)
        if M < 2:
            break
        for m in range(M):
            batch[m] = order[first + m]
            batch_y[m] = y[batch[m]]

        place, unit = start, start
        for layer in range(n_layers):
            H, D_below = sizes[layer + 1], sizes[layer]
            if layer == 0:
                product(
                    z_flat, start, row, parameters, start, D, next_to, x_flat, start, D, batch, turned, panel, H, D, M
                )
            else:
                below = (unit - D_below) * row
                product(
                    z_flat, unit * row, row, parameters, place, D_below, next_to, a_flat, below, row, units, plain,
                    panel, H, D_below, M,
                )  # fmt: skip
            place += H * D_below
            gamma, beta = parameters[place:][:H], parameters[place + H :][:H]
            normalise(
                z_flat, a_flat, unit * row, row, M, unit, gamma, beta, running, keep, epsilon, means, inverse_stds
            )
            place += 2 * H
            unit += H
        H = sizes[-2]
        if n_layers == 0:
            product(d_flat, start, row, parameters, start, D, next_to, x_flat, start, D, batch, turned, panel, C, D, M)
        else:
            below = (unit - H) * row
            product(d_flat, start, row, parameters, place, H, next_to, a_flat, below, row, units, plain, panel, C, H, M)
        scores, b = gradients[0], parameters[place + C * H :][:C]
        loss = cross_entropy(scores, b, batch_y[:M], highest[:M], total[:M])
        loss_sum += loss
        if not math.isfinite(loss):
            return loss_sum, n_updates
        n_updates += 1

        cross_entropy_backward(scores, batch_y[:M], total[:M], d_units[:C])
        d_z, n_others = start, C  # d_z is where that of this layer starts
        for layer in range(n_layers, -1, -1):
            H, D_below = sizes[layer + 1], sizes[layer]  # W and its gradient are (H, D_below)
            d_below = ((n_layers - layer + 1) % 2) * widest * row
            if layer > 0:
                unit -= D_below
                product(
                    d_weights, start, D_below, d_flat, d_z, row, next_to, a_flat, unit * row, row, units, turned,
                    panel, H, M, D_below,
                )  # fmt: skip
                product(
                    d_flat, d_below, row, parameters, place, next_to, D_below, d_flat, d_z, row, units, plain,
                    panel, D_below, H, M,
                )  # fmt: skip
            else:
                product(d_weights, start, D, d_flat, d_z, row, next_to, x_flat, start, D, batch, listed, panel, H, M, D)
            end = place + H * D_below
            _update(
                optimizer, parameters[place:end], d_weights[: H * D_below], v[place:end], s[place:end], l2,
                step + n_updates, settings,
            )  # fmt: skip
            last = end + n_others
            _update(
                optimizer, parameters[end:last], d_units[:n_others], v[end:last], s[end:last], 0.0,
                step + n_updates, settings,
            )  # fmt: skip
            if layer > 0:
                place -= 2 * D_below  # where gamma starts, then beta, of the layer below
                gamma, d_gamma, d_beta = parameters[place:][:D_below], d_units[:D_below], d_units[D_below:]
                normalise_backward(
                    d_flat, d_below, a_flat, z_flat, unit * row, row, M, unit, gamma, inverse_stds, d_gamma, d_beta
                )
                place -= D_below * sizes[layer - 1]
                d_z, n_others = d_below, 2 * D_below
    return loss_sum, n_updates


@cached
def evaluate(
    sizes: Array, parameters: Array, running: Array, correction: float, epsilon: float, x: Array, y: Array
) -> tuple[float, int]:
    """Return the summed loss and the number of examples whose class is right.

    Args:
        sizes: D, H of each hidden layer, C; int64.
        parameters: (P,).
        running: (2, U), weighted averages of mean and variance.
        correction: what they are multiplied by, for having started at 0; 0 stands for mean 0 and variance 1.
        epsilon: of batch norm.
        x: (N, D).
        y: (N,).
    """
    start, next_to, plain, turned = (
        np.int64(0),
        np.int64(1),
        np.int64(PLAIN),
        np.int64(TURNED),
    )  # not literals, as above
    n_layers, D, C, N = len(sizes) - 2, sizes[0], sizes[-1], len(x)
    number = parameters.dtype.type
    zero, one = number(0), number(1)
    block = min(_EVALUATION_BLOCK, N)
    row, widest = _padded(block), C
    for layer in range(n_layers):
        widest = max(widest, sizes[layer + 1])
    lines = np.arange(max(block, widest))
    buffers = _aligned(2 * widest, row, parameters).reshape((2, widest, row))  # 2,H,M
    panel = _aligned(1, PANEL // parameters.itemsize, parameters)[0]
    flat, x_flat = buffers.reshape(-1), writable(x.reshape(-1))
    parameters = writable(parameters)
    sums = _aligned(2, row, parameters)
    highest, total = sums[0], sums[1]  # M
    loss_sum, n_correct = 0.0, 0
    for first in range(0, N, block):
        M = min(block, N - first)
        labels = y[first : first + M]
        place, unit = start, start
        for layer in range(n_layers + 1):
            H, D_below = sizes[layer + 1], sizes[layer]
            out = (layer % 2) * widest * row
            if layer == 0:
                product(
                    flat, out, row, parameters, start, D, next_to, x_flat, first * D, D, lines, turned, panel, H, D, M
                )
            else:
                below = ((layer + 1) % 2) * widest * row
                product(
                    flat, out, row, parameters, place, D_below, next_to, flat, below, row, lines, plain,
                    panel, H, D_below, M,
                )  # fmt: skip
            place += H * D_below
            if layer == n_layers:
                break
            for h in range(H):
                gamma, beta = parameters[place + h], parameters[place + H + h]
                mean, variance = running[0, unit + h] * number(correction), running[1, unit + h] * number(correction)
                if correction == 0:
                    variance = one
                # gamma * (z - mean) / std + beta == scale * z + shift
                scale = gamma / math.sqrt(variance + number(epsilon))
                z, shift = flat[out + h * row :][:M], fused(-scale, mean, beta)
                for j in range(M):
                    z_tilde = fused(scale, z[j], shift)
                    z[j] = zero if z_tilde <= zero else z_tilde  # NaN stays
            place += 2 * H
            unit += H
        scores, b = buffers[n_layers % 2], parameters[place:][:C]
        n_correct += count_correct(scores, b, labels, highest[:M], total[:M])
        loss_sum += cross_entropy(scores, b, labels, highest[:M], total[:M])
    return loss_sum, n_correct
