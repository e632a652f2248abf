"""Gradients against central differences in float64, and the kernels against the layers they speed up."""

from __future__ import annotations

import numpy as np
import pytest

from caviar.nn import layers
from caviar.nn.initial import initial_parameters
from caviar.nn.kernel import RUNNING_WEIGHT, Kernel, Update
from caviar.nn.network import Network

#: Central differences of step 1e-6 in float64 are good to about 1e-9; losses here are of order 1.
TOLERANCE = 1e-7
STEP = 1e-6


def directional(function, x: np.ndarray, direction: np.ndarray) -> float:
    """Return the derivative of a scalar function along a direction, by central differences."""
    return (function(x + STEP * direction) - function(x - STEP * direction)) / (2 * STEP)


def problem(sizes: tuple[int, ...], M: int, seed: int = 0):
    """Return a network, float64 parameters away from their start, and M examples."""
    rng = np.random.default_rng(seed)
    network = Network(sizes)
    parameters = initial_parameters(network, (seed, 1), "float64") + 0.1 * rng.standard_normal(network.n_parameters)
    return network, parameters, rng.standard_normal((M, sizes[0])), rng.integers(0, sizes[-1], M)


def layered_loss(network: Network, parameters: np.ndarray, x: np.ndarray, y: np.ndarray, l2: float = 0.0) -> float:
    """Return the cost of one mini-batch, written with the layers alone."""
    hidden, output = network.views(parameters)
    a, penalty = x.T, 0.0
    for layer in hidden:
        z_tilde, *_ = layers.batch_norm_forward(layers.linear_forward(layer.W, a), layer.gamma, layer.beta)
        a = layers.relu_forward(z_tilde)
        penalty += (layer.W**2).sum()
    loss, _ = layers.softmax_cross_entropy_forward(output.W @ a + output.b[:, None], y)
    return loss + l2 / 2 * (penalty + (output.W**2).sum())


def kernel_gradient(kernel: Kernel, network, parameters, x, y, l2: float) -> np.ndarray:
    """Return the gradient that a kernel used, from one step of gradient descent."""
    after, running = parameters.copy(), np.zeros((2, network.n_units))
    update = Update("sgd", 1.0, 0.0, l2)
    order = np.arange(len(x))
    kernel.train(network, after, np.zeros((0, len(after))), running, 0, x, y, order, len(x), update)
    return parameters - after


def test_batch_norm_backward_is_the_derivative_of_forward() -> None:
    """d_z, d_gamma and d_beta agree with central differences along random directions."""
    rng = np.random.default_rng(1)
    z, gamma, beta, weight = (rng.standard_normal(shape) for shape in ((4, 7), 4, 4, (4, 7)))

    *_, cache = layers.batch_norm_forward(z, gamma, beta)
    gradients = layers.batch_norm_backward(weight, cache)

    for index, gradient in enumerate(gradients):
        arguments = [z, gamma, beta]
        direction = rng.standard_normal(gradient.shape)

        def loss(value, index=index, arguments=arguments):
            changed = [value if i == index else argument for i, argument in enumerate(arguments)]
            return (layers.batch_norm_forward(*changed)[0] * weight).sum()

        assert (gradient * direction).sum() == pytest.approx(
            directional(loss, arguments[index], direction), abs=TOLERANCE, rel=TOLERANCE
        )


def test_softmax_cross_entropy_backward_is_the_derivative_of_forward() -> None:
    """(y_hat - y) / M agrees with central differences."""
    rng = np.random.default_rng(2)
    z, y, direction = rng.standard_normal((3, 6)), rng.integers(0, 3, 6), rng.standard_normal((3, 6))

    _, probabilities = layers.softmax_cross_entropy_forward(z, y)
    d_z = layers.softmax_cross_entropy_backward(probabilities, y)

    numeric = directional(lambda value: layers.softmax_cross_entropy_forward(value, y)[0], z, direction)
    assert (d_z * direction).sum() == pytest.approx(numeric, abs=TOLERANCE)


def test_linear_and_relu_backward_are_the_derivatives_of_forward() -> None:
    """d_W, d_a and the ReLU mask agree with central differences."""
    rng = np.random.default_rng(3)
    W, a, weight = rng.standard_normal((4, 5)), rng.standard_normal((5, 6)), rng.standard_normal((4, 6))
    z = W @ a
    d_z = layers.relu_backward(weight, layers.relu_forward(z))
    d_W, d_a = layers.linear_backward(d_z, W, a)

    for gradient, value, loss in (
        (d_W, W, lambda v: (layers.relu_forward(v @ a) * weight).sum()),
        (d_a, a, lambda v: (layers.relu_forward(W @ v) * weight).sum()),
    ):
        direction = rng.standard_normal(value.shape)
        assert (gradient * direction).sum() == pytest.approx(directional(loss, value, direction), abs=1e-6)


@pytest.mark.parametrize("sizes", [(5, 3), (5, 4, 3), (6, 5, 4, 3, 2), (4, 3, 3, 3, 3, 3, 3)])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_the_gradient_of_a_kernel_is_the_derivative_of_the_layers(kernel: Kernel, sizes, l2: float) -> None:
    """For 0 to 5 hidden layers, with and without L2, along ten random directions."""
    network, parameters, x, y = problem(sizes, M=9)
    gradient = kernel_gradient(kernel, network, parameters, x, y, l2)
    rng = np.random.default_rng(4)

    for _ in range(10):
        direction = rng.standard_normal(len(parameters))
        numeric = directional(lambda value: layered_loss(network, value, x, y, l2), parameters, direction)
        assert gradient @ direction == pytest.approx(numeric, rel=1e-6, abs=1e-6)


def test_a_kernel_reports_the_loss_of_the_layers(kernel: Kernel) -> None:
    """The loss of a mini-batch is the layers' cost without the penalty."""
    network, parameters, x, y = problem((5, 4, 3), M=8)
    expected = layered_loss(network, parameters, x, y)

    moments, running = np.zeros((0, len(parameters))), np.zeros((2, 4))
    update = Update("sgd", 0.1, 0.0, 0.5)
    loss_sum, n = kernel.train(network, parameters, moments, running, 0, x, y, np.arange(8), 8, update)

    assert n == 1
    assert loss_sum / 8 == pytest.approx(expected, rel=1e-12)


def test_running_statistics_are_corrected_weighted_averages(kernel: Kernel) -> None:
    """After one mini-batch, evaluation uses exactly its mean and biased variance."""
    network, parameters, x, y = problem((5, 4, 3), M=8)
    still = Update("sgd", 1e-300, 0.0, 0.0)  # so small that no weight moves
    running = np.zeros((2, 4))
    kernel.train(network, parameters, np.zeros((0, len(parameters))), running, 0, x, y, np.arange(8), 8, still)

    (layer,), _ = network.views(parameters)
    z = layer.W @ x.T
    assert running[0] == pytest.approx((1 - RUNNING_WEIGHT) * z.mean(axis=1))
    assert running[1] == pytest.approx((1 - RUNNING_WEIGHT) * z.var(axis=1))
    loss, _ = kernel.evaluate(network, parameters, running, 1, x, y)
    assert loss == pytest.approx(layered_loss(network, parameters, x, y), rel=1e-9)


def test_a_bias_before_batch_norm_has_no_effect() -> None:
    """Adding a constant to a unit's pre-activations changes nothing, so its gradient is zero."""
    rng = np.random.default_rng(5)
    z, gamma, beta, d_out = (rng.standard_normal(shape) for shape in ((3, 6), 3, 3, (3, 6)))

    *_, cache = layers.batch_norm_forward(z, gamma, beta)
    d_z, *_ = layers.batch_norm_backward(d_out, cache)

    assert d_z.sum(axis=1) == pytest.approx(np.zeros(3), abs=1e-12)  # d_b = sum of d_z
    shifted = layers.batch_norm_forward(z + 7.0, gamma, beta)[0]
    assert shifted == pytest.approx(layers.batch_norm_forward(z, gamma, beta)[0])


def test_two_classes_are_logistic_regression(kernel: Kernel) -> None:
    """With C = 2 the loss is -log sigmoid of the difference of the scores."""
    network, parameters, x, y = problem((5, 2), M=20)
    _, output = network.views(parameters)
    difference = x @ (output.W[1] - output.W[0]) + output.b[1] - output.b[0]

    loss, _ = kernel.evaluate(network, parameters, np.zeros((2, 0)), 0, x, y)

    assert loss == pytest.approx(np.log1p(np.exp(-np.where(y == 1, difference, -difference))).mean())


def test_huge_scores_do_not_overflow() -> None:
    """Scores of 1e4 give the exact loss, 0 or their difference."""
    z, y = np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0])

    loss, probabilities = layers.softmax_cross_entropy_forward(z, y)

    assert loss == pytest.approx(5e3)
    assert probabilities.sum(axis=0) == pytest.approx([1, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_feature_and_two_examples_stay_finite(kernel: Kernel, dtype: str) -> None:
    """A unit without variance, in a mini-batch of two, gives finite numbers."""
    network = Network((3, 4, 2))
    parameters = initial_parameters(network, (1, 1), dtype)
    x, y = np.ones((2, 3), dtype), np.array([0, 1])
    running = np.zeros((2, 4), dtype)

    loss, n = kernel.train(
        network,
        parameters,
        np.zeros((2, len(parameters)), dtype),
        running,
        0,
        x,
        y,
        np.arange(2),
        2,
        Update("adam", 0.01, 0.9, 0.0),
    )

    assert n == 1
    assert np.isfinite([loss, *parameters, *running.ravel()]).all()
    assert parameters.dtype == dtype
