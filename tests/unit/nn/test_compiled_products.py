"""The compiled kernel's own matrix products, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caviar.nn.compiled_products import LISTED, PANEL, PLAIN, TURNED, product
from caviar.nn.compiled_vectors import VECTOR

#: Of the largest sum of absolute products: each of K products is added with one rounding.
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}
SIZES = st.integers(1, 70)
#: So deep that B is copied in several parts, and so shallow that it is not.
DEPTHS = st.one_of(SIZES, st.integers(380, 900))
GUARD = 7.0


def panel(dtype: str) -> np.ndarray:
    """Return the room that a product needs, which starts where a vector may."""
    room = np.full(PANEL + VECTOR, 0xFF, np.uint8)  # NaN
    start = -room.ctypes.data % VECTOR
    return room[start : start + PANEL].view(dtype)


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@given(H=SIZES, K=DEPTHS, M=SIZES, is_transposed=st.booleans(), kind=st.sampled_from([PLAIN, LISTED, TURNED]),
       seed=st.integers(0, 99))  # fmt: skip
@settings(deadline=None, max_examples=300)
def test_a_product_is_that_of_numpy(
    dtype: str, H: int, K: int, M: int, is_transposed: bool, kind: int, seed: int
) -> None:
    """Of any shape, with rows further apart than they are long, A transposed or not, B in any order or turned."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((H, K)).astype(dtype), rng.standard_normal((K, M)).astype(dtype)
    flat, a_row, a_column = (a.T.ravel(), 1, H) if is_transposed else (a.ravel(), K, 1)
    lying = b.T if kind == TURNED else b
    lines = rng.permutation(len(lying) + 2)[: len(lying)] if kind != PLAIN else np.arange(len(lying))
    memory = np.full((len(lying) + 2, lying.shape[1] + 3), np.nan, dtype)
    memory[lines, 2 : 2 + lying.shape[1]] = lying
    c = np.full((H + 1, M + 5), GUARD, dtype)

    product(
        c.reshape(-1), 5, M + 5, flat, 0, a_row, a_column, memory.reshape(-1), 2, memory.shape[1], lines, kind,
        panel(dtype), H, K, M,
    )  # fmt: skip

    found = c.ravel()[5 : 5 + H * (M + 5)].reshape(H, M + 5)[:, :M]
    expected = a.astype("float64") @ b
    assert np.abs(found - expected).max() <= TOLERANCE[dtype] * (np.abs(a) @ np.abs(b)).max()
    assert np.count_nonzero(c == GUARD) == c.size - H * M  # nothing else is written


@pytest.mark.parametrize("kind", [PLAIN, TURNED])
@pytest.mark.parametrize("K", [64, 67, 845], ids=["one part", "one part and a bit", "parts"])
def test_a_sum_does_not_depend_on_its_place(kind: int, K: int) -> None:
    """An element has the same bits in a product of many rows and columns and alone."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((31, K)).astype("float32"), rng.standard_normal((K, 77)).astype("float32")
    room = panel("float32")
    whole, one = np.zeros((31, 77), "float32"), np.zeros(1, "float32")
    lines, lying, b_row = np.arange(77), (b.T if kind == TURNED else b).ravel(), K if kind == TURNED else 77
    product(whole.reshape(-1), 0, 77, a.reshape(-1), 0, K, 1, lying, 0, b_row, lines, kind, room, 31, K, 77)

    for h, m in [(0, 0), (11, 31), (12, 32), (30, 76), (23, 64), (7, 62)]:
        product(one, 0, 1, a.reshape(-1), h * K, K, 1, b.reshape(-1), m, 77, lines, PLAIN, room, 1, K, 1)

        assert one[0] == whole[h, m]
