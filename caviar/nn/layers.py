"""The layers as the lectures write them: pure forward and backward pairs with an explicit cache.

This is the specification; the kernels compute the same, faster, and tests hold them to it. Notation: `d_x` is the
gradient of the cost with respect to `x`. The cost is the mean over the mini-batch.
"""

from __future__ import annotations

import numpy as np

#: Added to the variance before its square root, so that a constant feature does not divide by zero.
BATCH_NORM_EPSILON = 1e-5

BatchNormCache = tuple[np.ndarray, np.ndarray, np.ndarray]


def linear_forward(W: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Return z = W a: (H,D), (D,M) -> (H,M)."""
    z: np.ndarray = W @ a  # H,M
    return z


def linear_backward(d_z: np.ndarray, W: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (d_W, d_a), shapes (H,D) and (D,M)."""
    return d_z @ a.T, W.T @ d_z


def batch_norm_forward(
    z: np.ndarray, gamma: np.ndarray, beta: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, BatchNormCache]:
    """Normalise each unit over the mini-batch, then scale and shift.

    Args:
        z: pre-activations, (H, M).
        gamma: learned scale, (H,).
        beta: learned shift, (H,).

    Returns:
        z_tilde (H, M); the mean (H,) and biased variance (H,) of the mini-batch (divided by M, not M - 1); the cache.

    References:
        Lecture "Fitting batch norm into a neural network"; Ioffe and Szegedy 2015, Algorithm 1.
    """
    mean = z.mean(axis=1)  # H
    variance = ((z - mean[:, None]) ** 2).mean(axis=1)  # H
    inverse_std = 1 / np.sqrt(variance + BATCH_NORM_EPSILON)  # H
    z_norm = (z - mean[:, None]) * inverse_std[:, None]  # H,M
    z_tilde = gamma[:, None] * z_norm + beta[:, None]  # H,M
    return z_tilde, mean, variance, (z_norm, inverse_std, gamma)


def batch_norm_backward(d_z_tilde: np.ndarray, cache: BatchNormCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (d_z, d_gamma, d_beta), shapes (H,M), (H,), (H,).

    With the means over the mini-batch of d_z_norm and d_z_norm * z_norm:
    d_z = (d_z_norm - mean(d_z_norm) - z_norm * mean(d_z_norm * z_norm)) / std.
    """
    z_norm, inverse_std, gamma = cache
    M = z_norm.shape[1]
    d_gamma = (d_z_tilde * z_norm).sum(axis=1)  # H
    d_beta = d_z_tilde.sum(axis=1)  # H
    # same as the formula above, with mean(d_z_norm) = gamma * d_beta / M and so on
    d_z = (gamma * inverse_std)[:, None] * (d_z_tilde - d_beta[:, None] / M - z_norm * d_gamma[:, None] / M)  # H,M
    return d_z, d_gamma, d_beta


def relu_forward(z: np.ndarray) -> np.ndarray:
    """Return max(z, 0), any shape."""
    a: np.ndarray = np.maximum(z, 0)
    return a


def relu_backward(d_a: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Return d_z from the activation: zero where it is zero."""
    d_z: np.ndarray = d_a * (a > 0)
    return d_z


def softmax_cross_entropy_forward(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean cross-entropy (natural logarithm) and the class probabilities (C, M).

    Args:
        z: scores, (C, M).
        y: true class of each example, (M,).
    """
    # subtract the maximum: exp() cannot overflow, and softmax does not change
    shifted = z - z.max(axis=0)  # C,M
    t = np.exp(shifted)  # C,M
    total = t.sum(axis=0)  # M
    losses = np.log(total) - shifted[y, np.arange(len(y))]  # M
    return float(losses.mean()), t / total


def softmax_cross_entropy_backward(probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return d_z = (y_hat - y) / M, shape (C, M): divided by M, since the cost is a mean."""
    M = len(y)
    d_z = probabilities.copy()  # C,M
    d_z[y, np.arange(M)] -= 1
    d_z /= M
    return d_z
