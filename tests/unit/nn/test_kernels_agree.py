"""The compiled kernel against the NumPy kernel, which is the specification, over whole trainings."""

from __future__ import annotations

import numpy as np
import pytest

from caviar.data import load_dataset, resolve
from caviar.nn.kernel import choose_kernel
from caviar.nn.optimizers import N_MOMENTS
from caviar.training.advance import advance, initial_state
from caviar.training.dataset import Dataset

#: Relative, of every loss and weight after 20 epochs (340 updates): sums are added in another order, and training
#: multiplies the differences. Found in float64: 6e-15 at most.
FLOAT64_TOLERANCE = 1e-11
#: Found in float32: 1e-7, and 1e-3 with Adam on three layers, where a unit was active for one kernel and not for the
#: other: so part two trainings whenever one sum is rounded otherwise.
FLOAT32_TOLERANCE = 1e-2
EPOCHS = 20
RATES = {"sgd": 0.05, "momentum": 0.05, "rmsprop": 0.001, "adam": 0.001}


def trainings(optimizer: str, data: Dataset, **params: object) -> list:
    """Return the progress of 20 epochs with each kernel, NumPy first."""
    params = {"optimizer": optimizer, "learning_rate": RATES[optimizer], "l2": 1e-3, **params}
    state = initial_state((3, 5), params, data)
    return [advance(state, params, data, EPOCHS, kernel=choose_kernel(name)) for name in ("numpy", "compiled")]


@pytest.fixture(scope="module", params=["float32", "float64"])
def digits(request: pytest.FixtureRequest) -> Dataset:
    """The digits, in each precision."""
    return load_dataset(resolve("digits", None), dtype=request.param)


@pytest.mark.parametrize("optimizer", sorted(N_MOMENTS))
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_twenty_epochs_agree(digits: Dataset, optimizer: str, layers: int) -> None:
    """Losses and weights agree to the tolerances above, with decay, L2 and a smaller last mini-batch."""
    params = {"layers": layers, "hidden_units": 33, "batch_size": 64, "learning_rate_decay": 0.1}

    one, other = trainings(optimizer, digits, **params)

    assert len(one.reports) == len(other.reports) == EPOCHS
    tolerance = FLOAT64_TOLERANCE if digits.dtype == "float64" else FLOAT32_TOLERANCE
    np.testing.assert_allclose(other.reports.values, one.reports.values, rtol=tolerance)
    for found, wanted in zip(
        (other.state.parameters, other.state.running), (one.state.parameters, one.state.running), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)
