"""The four optimizers against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from caviar.nn.optimizers import N_MOMENTS, UPDATES

ALPHA, BETA = 0.1, 0.9


def two_steps(name: str, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    """Return parameters and moments after gradients 2, then 1, from a parameter of 1."""
    parameters, moments = np.ones(1, dtype), np.zeros((N_MOMENTS[name], 1), dtype)
    for step, gradient in enumerate((2.0, 1.0), start=1):
        UPDATES[name](parameters, np.array([gradient], dtype), moments, np.empty(1, dtype), step, ALPHA, BETA)
    return parameters, moments


#: By the formulas of the lectures, for gradients 2 and 1.
EXPECTED = {
    # 1 - 0.1 * 2 - 0.1 * 1
    "sgd": (0.7, []),
    # v: 0.2, then 0.28; 1 - 0.02 - 0.028
    "momentum": (0.952, [0.28]),
    # s: 0.4, then 0.46
    "rmsprop": (1 - 0.2 / (0.4**0.5 + 1e-8) - 0.1 / (0.46**0.5 + 1e-8), [0.46]),
    # v: 0.2, 0.28; s: 0.004, 0.004996; corrected: 2 and 4, then 0.28 / 0.19 and 0.004996 / 0.001999
    "adam": (
        1 - 0.1 * 2 / (2 + 1e-8) - 0.1 * (0.28 / 0.19) / ((0.004996 / 0.001999) ** 0.5 + 1e-8),
        [0.28, 0.004996],
    ),
}


@pytest.mark.parametrize("name", UPDATES)
def test_two_steps_are_known_by_hand(name):
    """Parameters and moments after two steps are those of the lectures' formulas."""
    parameters, moments = two_steps(name)

    expected, expected_moments = EXPECTED[name]
    # 1e-12: 1 - 0.999**2 has lost four digits by cancellation
    np.testing.assert_allclose(parameters, [expected], rtol=1e-12)
    np.testing.assert_allclose(moments[:, 0], expected_moments, rtol=1e-13)


@pytest.mark.parametrize("name", UPDATES)
def test_float32_stays_float32(name):
    """No constant promotes the parameters or moments."""
    parameters, moments = two_steps(name, "float32")

    assert (parameters.dtype, moments.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(parameters, [EXPECTED[name][0]], rtol=1e-6)


@pytest.mark.parametrize("name", ["rmsprop", "adam"])
def test_a_zero_gradient_changes_nothing(name):
    """A parameter that never had a gradient stays where it is: epsilon keeps 0 / 0 away."""
    parameters, moments = np.ones(3), np.zeros((N_MOMENTS[name], 3))

    UPDATES[name](parameters, np.zeros(3), moments, np.empty(3), 1, ALPHA, BETA)

    np.testing.assert_array_equal(parameters, np.ones(3))
