"""The kernels against a training loop written plainly with the layers and the formulas of the lectures, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from caviar.nn import layers
from caviar.nn.initial import initial_parameters
from caviar.nn.kernel import Kernel, Update
from caviar.nn.network import Network
from caviar.nn.optimizers import N_MOMENTS

#: float64 sums in another order, over ten updates; Adam divides by small roots, which costs a few digits.
TOLERANCE = 1e-9
#: One float32 update rounds some ten times at 6e-8; sums over 37 examples add a little.
FLOAT32_TOLERANCE = 1e-4

SIZES = [(5, 3), (5, 4, 3), (6, 5, 4, 5, 2)]
LEARNING_RATE, MOMENTUM, L2, M, N = 0.05, 0.8, 0.1, 8, 37


def make_examples(n: int, n_features: int, n_classes: int, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    """Return n examples, an example a row, and their classes."""
    rng = np.random.default_rng(21)
    return rng.standard_normal((n, n_features)).astype(dtype), rng.integers(0, n_classes, n)


def start(network: Network, optimizer: str, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return parameters, moments and running statistics before training."""
    parameters = initial_parameters(network, (3, 4), dtype)
    moments = np.zeros((N_MOMENTS[optimizer], len(parameters)), dtype)
    return parameters, moments, np.zeros((2, network.n_units), dtype)


def plain_gradient(network: Network, parameters: np.ndarray, x: np.ndarray, y: np.ndarray, l2: float):
    """Return the loss, the flat gradient and each hidden layer's mean and variance, by the layers alone."""
    hidden, output = network.views(parameters)
    gradient = np.zeros_like(parameters)
    d_hidden, d_output = network.views(gradient)
    a, kept, statistics = x.T, [], []
    for layer in hidden:
        z = layers.linear_forward(layer.W, a)
        z_tilde, mean, variance, cache = layers.batch_norm_forward(z, layer.gamma, layer.beta)
        below, a = a, layers.relu_forward(z_tilde)
        kept.append((below, cache, a))
        statistics.append((mean, variance))
    scores = layers.linear_forward(output.W, a) + output.b[:, None]
    loss, probabilities = layers.softmax_cross_entropy_forward(scores, y)
    d_z = layers.softmax_cross_entropy_backward(probabilities, y)
    d_output.b[...] = d_z.sum(axis=1)
    d_W, d_a = layers.linear_backward(d_z, output.W, a)
    d_output.W[...] = d_W + l2 * output.W
    for layer, d_layer, (below, cache, a) in reversed(list(zip(hidden, d_hidden, kept, strict=True))):
        d_z, d_gamma, d_beta = layers.batch_norm_backward(layers.relu_backward(d_a, a), cache)
        d_W, d_a = layers.linear_backward(d_z, layer.W, below)
        d_layer.W[...] = d_W + l2 * layer.W
        d_layer.gamma[...], d_layer.beta[...] = d_gamma, d_beta
    return loss, gradient, statistics


def plain_update(optimizer: str, t: int, gradient: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Return what to subtract from the parameters at step t (from 1); the moments are updated."""
    if optimizer == "sgd":
        return LEARNING_RATE * gradient
    if optimizer == "momentum":
        moments[0] = MOMENTUM * moments[0] + (1 - MOMENTUM) * gradient
        return LEARNING_RATE * moments[0]
    if optimizer == "rmsprop":
        moments[0] = 0.9 * moments[0] + 0.1 * gradient**2
        return LEARNING_RATE * gradient / (np.sqrt(moments[0]) + 1e-8)
    moments[0] = 0.9 * moments[0] + 0.1 * gradient
    moments[1] = 0.999 * moments[1] + 0.001 * gradient**2
    v, s = moments[0] / (1 - 0.9**t), moments[1] / (1 - 0.999**t)
    return LEARNING_RATE * v / (np.sqrt(s) + 1e-8)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("optimizer", sorted(N_MOMENTS))
def test_two_epochs_are_those_of_the_layers(kernel: Kernel, optimizer: str, sizes: tuple[int, ...]) -> None:
    """Loss, parameters, moments and running statistics agree, with L2 and a smaller last mini-batch."""
    network = Network(sizes)
    x, y = make_examples(N, sizes[0], sizes[-1])
    order = np.random.default_rng(22).permutation(2 * N) % N
    parameters, moments, running = start(network, optimizer)
    expected = [array.copy() for array in (parameters, moments, running)]

    loss_sum, n = kernel.train(
        network, parameters, moments, running, 0, x, y, order, M, Update(optimizer, LEARNING_RATE, MOMENTUM, L2)
    )

    expected_sum = 0.0
    for t, first in enumerate(range(0, len(order), M), 1):
        batch = order[first : first + M]
        loss, gradient, statistics = plain_gradient(network, expected[0], x[batch], y[batch], L2)
        expected_sum += loss * len(batch)
        expected[0] -= plain_update(optimizer, t, gradient, expected[1])
        if statistics:
            expected[2] = 0.9 * expected[2] + 0.1 * np.concatenate(statistics, axis=1)
    assert n == 10
    assert loss_sum == pytest.approx(expected_sum, rel=TOLERANCE)
    for found, wanted in zip((parameters, moments, running), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("step", [0, 1, 7, 100_000])
@pytest.mark.parametrize("n", [1, 37, 512, 1025])
def test_evaluation_normalises_with_the_corrected_running_statistics(kernel: Kernel, n: int, step: int) -> None:
    """Loss and accuracy are those of the layers' formulas, for any number of examples; untrained, mean 0 and var 1."""
    network = Network((4, 6, 5, 3))
    rng = np.random.default_rng(23)
    parameters = rng.standard_normal(network.n_parameters)
    running = rng.random((2, network.n_units)) if step else np.zeros((2, network.n_units))
    x, y = make_examples(n, 4, 3)

    loss, accuracy = kernel.evaluate(network, parameters, running, step, x, y)

    hidden, output = network.views(parameters)
    means, variances = running / (1 - 0.9**step) if step else (np.zeros(11), np.ones(11))
    a = x.T
    for layer, units in zip(hidden, (slice(0, 6), slice(6, 11)), strict=True):
        z_norm = (layer.W @ a - means[units, None]) / np.sqrt(variances[units, None] + layers.BATCH_NORM_EPSILON)
        a = np.maximum(layer.gamma[:, None] * z_norm + layer.beta[:, None], 0)
    expected, probabilities = layers.softmax_cross_entropy_forward(output.W @ a + output.b[:, None], y)
    assert loss == pytest.approx(expected, rel=TOLERANCE)
    assert accuracy == np.mean(probabilities.argmax(axis=0) == y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", sorted(N_MOMENTS))
def test_mini_batches_in_several_calls_give_the_same_bits(kernel: Kernel, optimizer: str, dtype: str) -> None:
    """Cut between any two mini-batches, parameters, moments, running statistics and the sum of losses are equal."""
    network = Network((5, 7, 3))
    x, y = make_examples(N, 5, 3, dtype)
    order, update = np.random.default_rng(24).permutation(N), Update(optimizer, LEARNING_RATE, MOMENTUM, L2)
    whole = start(network, optimizer, dtype)
    whole_sum, n_updates = kernel.train(network, *whole, 0, x, y, order, M, update)

    for cut in range(1, n_updates):
        parts = start(network, optimizer, dtype)
        loss_sum, n_first = kernel.train(network, *parts, 0, x, y, order[: cut * M], M, update)
        loss_sum, n_rest = kernel.train(network, *parts, n_first, x, y, order[cut * M :], M, update, loss_sum)

        assert (n_first, n_rest) == (cut, n_updates - cut)
        assert loss_sum == whole_sum
        assert all(np.array_equal(one, other) for one, other in zip(parts, whole, strict=True))


@pytest.mark.parametrize("optimizer", sorted(N_MOMENTS))
def test_float32_follows_float64(kernel: Kernel, optimizer: str) -> None:
    """After one update the two differ by rounding alone, and float32 stays float32."""
    network = Network((5, 7, 3))
    results = []
    for dtype in ("float32", "float64"):
        x, y = make_examples(N, 5, 3, dtype)
        arrays = start(network, optimizer, dtype)
        update = Update(optimizer, LEARNING_RATE, MOMENTUM, L2)
        loss_sum, _ = kernel.train(network, *arrays, 0, x, y, np.arange(N), N, update)
        assert all(array.dtype == dtype for array in arrays)
        results.append((loss_sum, arrays))

    (loss32, arrays32), (loss64, arrays64) = results
    assert loss32 == pytest.approx(loss64, rel=FLOAT32_TOLERANCE)
    for one, other in zip(arrays32, arrays64, strict=True):
        np.testing.assert_allclose(one, other, rtol=FLOAT32_TOLERANCE, atol=FLOAT32_TOLERANCE)


def test_a_loss_that_is_not_finite_ends_training_before_its_update(kernel: Kernel) -> None:
    """With a NaN in the third mini-batch two updates are done, the sum is NaN, and nothing else was touched."""
    network, update = Network((5, 7, 3)), Update("adam", LEARNING_RATE, MOMENTUM, L2)
    x, y = make_examples(N, 5, 3)
    x[2 * M] = np.nan
    stopped, two = start(network, "adam"), start(network, "adam")

    loss_sum, n = kernel.train(network, *stopped, 0, x, y, np.arange(N), M, update)
    kernel.train(network, *two, 0, x, y, np.arange(2 * M), M, update)

    assert n == 2
    assert np.isnan(loss_sum)
    assert np.array_equal(stopped[0], two[0])
    assert np.array_equal(stopped[1], two[1])


def test_a_last_mini_batch_of_one_is_left_out(kernel: Kernel) -> None:
    """Nine examples in mini-batches of eight are one update, whatever the ninth is."""
    network, update = Network((5, 7, 3)), Update("momentum", LEARNING_RATE, MOMENTUM, 0.0)
    x, y = make_examples(9, 5, 3)
    with_one, without = start(network, "momentum"), start(network, "momentum")

    found = kernel.train(network, *with_one, 0, x, y, np.arange(9), M, update)

    assert found == kernel.train(network, *without, 0, x, y, np.arange(8), M, update)
    assert all(np.array_equal(one, other) for one, other in zip(with_one, without, strict=True))


def test_the_data_are_not_changed(kernel: Kernel) -> None:
    """Features, classes and the order are read only, and may be read-only arrays."""
    network, update = Network((5, 7, 3)), Update("sgd", LEARNING_RATE, MOMENTUM, 0.0)
    x, y = make_examples(N, 5, 3)
    order = np.arange(N)
    for array in (x, y, order):
        array.setflags(write=False)
    parameters, moments, running = start(network, "sgd")

    _, n = kernel.train(network, parameters, moments, running, 0, x, y, order, M, update)
    kernel.evaluate(network, parameters, running, n, x, y)

    assert n == 5
