"""Standardisation by the training part."""

from __future__ import annotations

import numpy as np
import pytest

from caviar.data.scaling import Scaling
from caviar.errors import DataError


def standardise(x: np.ndarray, parts: tuple[np.ndarray, ...], dtype: str) -> list[np.ndarray]:
    """Standardise parts of features by the first."""
    scaling, features = Scaling.of(x, parts[0]), tuple(f"x{index}" for index in range(x.shape[1]))
    return [scaling.apply(x, rows, features, dtype) for rows in parts]


def test_features_are_standardised_by_the_training_part_alone() -> None:
    """Every part is (x - mean) / std with the biased moments of the training rows."""
    x = np.random.default_rng(1).normal(3.0, 20.0, (5000, 70))  # several blocks
    parts = (np.arange(0, 4000), np.arange(4000, 4500), np.arange(4500, 5000))

    found = standardise(x, parts, "float64")

    expected = (x - x[:4000].mean(axis=0)) / x[:4000].std(axis=0)
    for rows, part in zip(parts, found, strict=True):
        # two orders of summation over 4,000 rows
        np.testing.assert_allclose(part, expected[rows], rtol=1e-11, atol=1e-13)


def test_changing_a_test_row_leaves_training_as_it_was() -> None:
    """Nothing of the test part leaks into the moments."""
    x = np.random.default_rng(2).normal(size=(30, 3))
    parts = (np.arange(20), np.arange(20, 25), np.arange(25, 30))
    changed = x.copy()
    changed[25:] *= 1000.0

    before, after = (
        standardise(x, parts, "float32"),
        standardise(changed, parts, "float32"),
    )

    assert np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.0, 1e300, 5e-324])
def test_a_constant_feature_becomes_zero(constant: float) -> None:
    """No NaN and no rounding noise, and other values of other parts keep their unit."""
    x = np.full((11, 1), constant)
    x[10] = constant + 2.0

    train, _, test = standardise(x, (np.arange(7), np.arange(7, 9), np.arange(9, 11)), "float32")

    assert not train.any()
    assert test[:, 0].tolist() == [0.0, np.float32(constant + 2.0 - constant)]


@pytest.mark.parametrize("unit", [1e-300, 1e-150, 1.0, 1e150, 1e305])
def test_the_unit_of_a_feature_does_not_matter(unit: float) -> None:
    """Squares that overflow or vanish in float64 do no harm."""
    x = np.linspace(-3.0, 5.0, 50)[:, None]
    parts = (np.arange(50), np.arange(0), np.arange(0))

    found = standardise(x * unit, parts, "float64")[0]

    np.testing.assert_allclose(found, (x - x.mean()) / x.std(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("outlier", [1e45, 1e308])
def test_a_value_that_the_dtype_cannot_hold_names_its_column(outlier: float) -> None:
    """An infinity never reaches training."""
    x = np.random.default_rng(3).normal(size=(10, 2))
    x[9, 1] = outlier

    with pytest.raises(DataError, match="column 'x1' to fit float32"):
        standardise(x * 1e-3, (np.arange(8), np.arange(8, 9), np.arange(9, 10)), "float32")


def test_arrays_are_contiguous_read_only_and_of_the_dtype() -> None:
    """float32 unless asked otherwise, rows in C order, and nobody can change them."""
    x = np.asfortranarray(np.random.default_rng(4).normal(size=(9, 2)))

    for dtype in ("float32", "float64"):
        for part in standardise(x, (np.arange(5), np.arange(5, 7), np.arange(7, 9)), dtype):
            assert part.dtype == dtype
            assert part.flags.c_contiguous
            assert not part.flags.writeable
