"""The layers of the lectures: constants worked out by hand, and awkward values."""

from __future__ import annotations

import numpy as np
import pytest

from caviar.nn import layers


def test_batch_norm_of_two_examples_is_known_by_hand():
    """z = (1, 3) has mean 2 and biased variance 1, so z_norm is (-1, 1) / sqrt(1 + eps)."""
    z, gamma, beta = np.array([[1.0, 3.0]]), np.array([2.0]), np.array([0.5])

    z_tilde, mean, variance, _ = layers.batch_norm_forward(z, gamma, beta)

    norm = 1 / np.sqrt(1 + layers.BATCH_NORM_EPSILON)
    assert (mean.tolist(), variance.tolist()) == ([2.0], [1.0])
    np.testing.assert_allclose(z_tilde, [[0.5 - 2 * norm, 0.5 + 2 * norm]], rtol=1e-15)


def test_batch_norm_of_a_constant_feature_is_its_shift():
    """A unit of zero variance gives beta, and passes no gradient."""
    z, gamma, beta = np.full((1, 4), 7.0), np.array([3.0]), np.array([-1.0])

    z_tilde, _, variance, cache = layers.batch_norm_forward(z, gamma, beta)
    d_z, d_gamma, d_beta = layers.batch_norm_backward(np.ones((1, 4)), cache)

    assert variance.tolist() == [0.0]
    np.testing.assert_array_equal(z_tilde, np.full((1, 4), -1.0))
    np.testing.assert_array_equal(d_z, np.zeros((1, 4)))
    assert (d_gamma.tolist(), d_beta.tolist()) == ([0.0], [4.0])


def test_softmax_cross_entropy_is_known_by_hand():
    """Scores (log 1, log 3) give probabilities (1/4, 3/4); the loss is the mean of -log of the true one."""
    z = np.log(np.array([[1.0, 1.0], [3.0, 3.0]]))

    loss, probabilities = layers.softmax_cross_entropy_forward(z, np.array([0, 1]))

    np.testing.assert_allclose(probabilities, [[0.25, 0.25], [0.75, 0.75]], rtol=1e-15)
    assert loss == pytest.approx((np.log(4) + np.log(4 / 3)) / 2, rel=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_scores_do_not_overflow(dtype):
    """Scores of 1e4 give a finite loss, for the right class zero, for the wrong one their distance."""
    z = np.array([[1e4, 1e4], [-1e4, -1e4]], dtype)

    loss, probabilities = layers.softmax_cross_entropy_forward(z, np.array([0, 1]))

    assert loss == 1e4
    np.testing.assert_array_equal(probabilities, [[1, 1], [0, 0]])


def test_softmax_of_two_classes_is_logistic_regression():
    """With C = 2, loss and gradient are those of the logistic function on the difference of the scores."""
    rng = np.random.default_rng(3)
    z, y = 3 * rng.standard_normal((2, 9)), rng.integers(0, 2, 9)
    margin = z[1] - z[0]  # M
    sigmoid = 1 / (1 + np.exp(-margin))  # M

    loss, probabilities = layers.softmax_cross_entropy_forward(z, y)
    d_z = layers.softmax_cross_entropy_backward(probabilities, y)

    np.testing.assert_allclose(probabilities[1], sigmoid, rtol=1e-13)
    assert loss == pytest.approx(-np.mean(y * np.log(sigmoid) + (1 - y) * np.log(1 - sigmoid)), rel=1e-13)
    np.testing.assert_allclose(d_z[1], (sigmoid - y) / 9, rtol=1e-12)
