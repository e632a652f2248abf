"""Softmax and cross-entropy of the compiled kernel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from caviar.nn.compiled_cache import compiled
from caviar.nn.compiled_rows import add_rows
from caviar.nn.compiled_vectors import SUMS, fused

Array = np.ndarray

# exp(r) for |r| <= ln(2) / 2 to float32 precision, highest power first (Cephes, expf)
_EXP = tuple(map(np.float32, (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666666e-1, 0.5)))
_EXP_5, _EXP_4, _EXP_3, _EXP_2, _EXP_1, _EXP_0 = _EXP
_LOG2_E = np.float32(1.4426950408889634)
# ln(2) in two parts: a small number of the first is exact in float32
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_HALF, _ONE = np.float32(0.5), np.float32(1)
# below, exp() is 0: the products of subnormal numbers would take a hundred times as long
_EXP_LOWEST = np.float32(-80)
_ZERO = np.float32(0)


@compiled
def _exp32(x: Any) -> Any:
    """Return exp(x) of a float32 x <= 0, within 2 units in the last place; NaN gives NaN. Made to be vectorised."""
    below = x < _EXP_LOWEST  # False for NaN, which goes on
    x = _EXP_LOWEST if below else x
    n = np.int32(x * _LOG2_E - _HALF)  # rounds to nearest, as x <= 0
    r = fused(np.float32(n), -_LN2_HIGH, x)
    r = fused(np.float32(n), -_LN2_LOW, r)
    power = _EXP_5
    power = fused(power, r, _EXP_4)
    power = fused(power, r, _EXP_3)
    power = fused(power, r, _EXP_2)
    power = fused(power, r, _EXP_1)
    power = fused(power, r, _EXP_0)
    power = fused(power, r * r, r) + _ONE
    two_to_n = np.int32((n + 127) << 23).view(np.float32)
    return _ZERO if below else power * two_to_n


@compiled
def _exponentials(z: Array, highest: Array, total: Array) -> None:
    """z = exp(z - highest), and its addition to total, all (M,)."""
    if z.itemsize == 4:
        for j in range(len(z)):
            t = _exp32(np.float32(z[j] - highest[j]))
            z[j] = t
            total[j] += t
    else:
        for j in range(len(z)):
            t = math.exp(z[j] - highest[j])
            z[j] = t
            total[j] += t


@compiled
def cross_entropy(z: Array, b: Array, y: Array, highest: Array, total: Array) -> float:
    """Turn scores without bias (C, M) into exponentials, with their sums (M,) over classes; return the summed loss."""
    C, M = len(b), len(y)
    for c in range(C):
        row, bias = z[c, :M], b[c]
        for j in range(M):
            score = row[j] + bias
            row[j] = score
            highest[j] = score if c == 0 or score > highest[j] else highest[j]
    distance = 0.0
    for j in range(M):
        distance += np.float64(highest[j] - z[y[j], j])
    for j in range(M):
        total[j] = z.dtype.type(0)
    for c in range(C):
        _exponentials(z[c, :M], highest, total)
    # the sum of logarithms is the logarithm of a product, taken before it overflows
    logarithm, product = 0.0, 1.0
    for j in range(M):
        product *= total[j]
        if product > 1e250:
            logarithm += math.log(product)
            product = 1.0
    return distance + logarithm + math.log(product)


@compiled
def count_correct(z: Array, b: Array, y: Array, best: Array, index: Array) -> int:
    """Return how many examples have the highest of their scores z + b (C, M), the first of equal ones, at y (M,)."""
    C, M = len(b), len(y)
    number = z.dtype.type
    for c in range(C):
        scores, bias, here = z[c, :M], b[c], number(c)
        for j in range(M):
            score = scores[j] + bias
            is_best = c == 0 or score > best[j]
            index[j] = here if is_best else index[j]
            best[j] = score if is_best else best[j]
    n_correct = 0
    for j in range(M):
        n_correct += index[j] == y[j]
    return n_correct


@compiled
def cross_entropy_backward(z: Array, y: Array, total: Array, d_b: Array) -> None:
    """Turn exponentials (C, M) into d_z = (y_hat - y) / M, and write d_b (C,)."""
    C, M = len(d_b), len(y)
    one, share = z.dtype.type(1), z.dtype.type(1 / M)
    for j in range(M):
        total[j] = share * (one / total[j])
    for c in range(C):
        row = z[c, :M]
        for j in range(M):
            row[j] *= total[j]
    flat, width = z.reshape(-1), SUMS // z.itemsize
    for c in range(0, C, width):
        add_rows(flat, c * z.shape[1], z.shape[1], min(width, C - c), M, d_b, c)
    for j in range(M):
        z[y[j], j] -= share
        d_b[y[j]] -= share
