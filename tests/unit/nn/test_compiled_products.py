"""The compiled kernel's own matrix products and transposition, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="the compiled kernel needs it: pip install numba")

from caviar.nn.compiled_products import product, transpose

#: Of the largest sum of absolute products: each of K products is added with one rounding.
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}
SIZES = st.integers(1, 70)
GUARD = 7.0


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@given(H=SIZES, K=SIZES, M=SIZES, is_transposed=st.booleans(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=200)
def test_a_product_is_that_of_numpy(dtype: str, H: int, K: int, M: int, is_transposed: bool, seed: int) -> None:
    """Of any shape, with rows further apart than they are long, and A transposed or not; nothing else is written."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((H, K)).astype(dtype), rng.standard_normal((K, M + 3)).astype(dtype)
    c = np.full((H + 1, M + 5), GUARD, dtype)
    flat, a_row, a_column = (a.T.ravel(), 1, H) if is_transposed else (a.ravel(), K, 1)

    product(c.reshape(-1), 5, M + 5, flat, 0, a_row, a_column, b.reshape(-1), 2, M + 3, H, K, M)

    found = c.ravel()[5 : 5 + H * (M + 5)].reshape(H, M + 5)[:, :M]
    right = b.ravel()[2:][: (K - 1) * (M + 3) + M]
    right = np.lib.stride_tricks.as_strided(right, (K, M), (right.itemsize * (M + 3), right.itemsize))
    expected = a.astype("float64") @ right
    assert np.abs(found - expected).max() <= TOLERANCE[dtype] * (np.abs(a) @ np.abs(right)).max()
    assert np.count_nonzero(c == GUARD) == c.size - H * M


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@given(n_rows=SIZES, n_columns=SIZES)
@settings(deadline=None, max_examples=100)
def test_a_transposed_matrix_is_that_of_numpy(dtype: str, n_rows: int, n_columns: int) -> None:
    """Of any shape, between rows that are further apart than they are long; nothing else is written."""
    source = np.arange(n_rows * (n_columns + 2), dtype=dtype).reshape(n_rows, n_columns + 2) + 10
    target = np.full((n_columns, n_rows + 3), GUARD, dtype)

    transpose(source.reshape(-1), 1, n_columns + 2, target.reshape(-1), 0, n_rows + 3, n_rows, n_columns)

    assert np.array_equal(target[:, :n_rows], source[:, 1 : n_columns + 1].T)
    assert np.all(target[:, n_rows:] == GUARD)


def test_a_sum_does_not_depend_on_its_place() -> None:
    """An element has the same bits in a product of many rows and columns and alone."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((31, 45)).astype("float32"), rng.standard_normal((45, 77)).astype("float32")
    whole, one = np.zeros((31, 77), "float32"), np.zeros(1, "float32")
    product(whole.reshape(-1), 0, 77, a.reshape(-1), 0, 45, 1, b.reshape(-1), 0, 77, 31, 45, 77)

    for h, m in [(0, 0), (11, 31), (12, 32), (30, 76), (23, 64)]:
        product(one, 0, 1, a.reshape(-1), h * 45, 45, 1, b.reshape(-1), m, 77, 1, 45, 1)

        assert one[0] == whole[h, m]
