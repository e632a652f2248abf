"""Gradient descent, momentum, RMSProp and Adam over one flat vector, in place.

Each keeps its moments as rows of one array (K, P); its hyperparameters other than the learning rate and momentum are
not tuned (lecture "Tuning process").
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray

#: K of each optimizer: how many moment vectors it keeps.
N_MOMENTS = {"sgd": 0, "momentum": 1, "rmsprop": 1, "adam": 2}

#: Weight of the old mean square in RMSProp (Hinton's lecture 6e); no bias correction.
RMSPROP_DECAY = 0.9
#: Adam's weights of the old first and second moment (Kingma and Ba 2015).
ADAM_BETA1 = 0.9
ADAM_BETA2 = 0.999
#: Added to the root of the mean square, in RMSProp and Adam.
OPTIMIZER_EPSILON = 1e-8

#: (parameters P, gradient P, moments K,P, scratch P, step counted from 1, learning rate, momentum) -> None
UpdateFunction = Callable[[Array, Array, Array, Array, int, float, float], None]


def sgd(
    parameters: Array, gradient: Array, moments: Array, scratch: Array, step: int, learning_rate: float, momentum: float
) -> None:
    """W -= alpha dW."""
    np.multiply(gradient, learning_rate, out=scratch)
    parameters -= scratch


def momentum(
    parameters: Array, gradient: Array, moments: Array, scratch: Array, step: int, learning_rate: float, momentum: float
) -> None:
    """V = beta V + (1 - beta) dW; W -= alpha V. `momentum` is beta, the weight of the old; no bias correction."""
    v = moments[0]  # P
    v *= momentum
    np.multiply(gradient, 1 - momentum, out=scratch)
    v += scratch
    np.multiply(v, learning_rate, out=scratch)
    parameters -= scratch


def rmsprop(
    parameters: Array, gradient: Array, moments: Array, scratch: Array, step: int, learning_rate: float, momentum: float
) -> None:
    """S = rho S + (1 - rho) dW^2; W -= alpha dW / (sqrt(S) + epsilon)."""
    s = moments[0]  # P
    s *= RMSPROP_DECAY
    np.multiply(gradient, gradient, out=scratch)
    scratch *= 1 - RMSPROP_DECAY
    s += scratch
    np.sqrt(s, out=scratch)
    scratch += OPTIMIZER_EPSILON
    np.divide(gradient, scratch, out=scratch)
    scratch *= learning_rate
    parameters -= scratch


def adam(
    parameters: Array, gradient: Array, moments: Array, scratch: Array, step: int, learning_rate: float, momentum: float
) -> None:
    """Kingma and Ba 2015, Algorithm 1, with both bias corrections."""
    v, s = moments  # P each
    v *= ADAM_BETA1
    np.multiply(gradient, 1 - ADAM_BETA1, out=scratch)
    v += scratch
    s *= ADAM_BETA2
    np.multiply(gradient, gradient, out=scratch)
    scratch *= 1 - ADAM_BETA2
    s += scratch
    # same as: alpha * (v / (1 - beta1^t)) / (sqrt(s / (1 - beta2^t)) + epsilon), one division and one pass fewer
    np.sqrt(s, out=scratch)
    correction = (1 - ADAM_BETA2**step) ** 0.5
    scratch += OPTIMIZER_EPSILON * correction
    np.divide(v, scratch, out=scratch)
    scratch *= learning_rate * correction / (1 - ADAM_BETA1**step)
    parameters -= scratch


UPDATES: dict[str, UpdateFunction] = {"sgd": sgd, "momentum": momentum, "rmsprop": rmsprop, "adam": adam}
