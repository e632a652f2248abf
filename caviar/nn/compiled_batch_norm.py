"""Batch norm of the compiled kernel, and ReLU behind it.

It is written in LLVM's vector instructions. A few rows go through all steps before the next, since they are in the
cache then. All matrices are parts of flat arrays, given by where they start and by the distance of their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from caviar.nn.compiled_cache import compiled
from caviar.nn.compiled_rows import clamped_rows, plain_sums, row_sums
from caviar.nn.compiled_vectors import SUMS, Vectors, data, number

Array = np.ndarray


@intrinsic
def _statistics(typing, z, start, row, n_rows, M, share, running, n_units, weight, epsilon, means, inverse_stds, at):
    """Write mean and 1 / deviation of some rows of z, at most as many as a vector has elements; share is 1 / M.

    The running mean and biased variance, which start at `at` and n_units further on, are renewed; weight is of the old.
    """
    i = types.int64
    signature = types.void(z, i, i, i, i, share, running, i, weight, epsilon, means, inverse_stds, i)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        z, start, row, n_rows, M, share, running, n_units, weight, epsilon, means, inverse_stds, at = arguments
        kinds = signature.args
        vector = Vectors(builder, kinds[0].dtype, SUMS)
        z = builder.gep(data(context, builder, kinds[0], z), [start])
        rows = clamped_rows(builder, vector, z, row, n_rows)
        shares = vector.splat(share, vector.element)

        mean = builder.fmul(plain_sums(builder, vector, rows, M), shares)

        def add_square(index: int, column: Any, mask: Any, sums: Sequence[Any]) -> list[Any]:
            difference = builder.fsub(vector.load(builder.gep(rows[index], [column]), mask), vector.lane(mean, index))
            if mask is not None:
                difference = builder.select(mask, difference, vector.zero)
            return [vector.multiply_add(difference, difference, sums[0])]

        (squares,) = row_sums(builder, vector, M, 1, add_square)
        mask, variance = vector.below(n_rows), builder.fmul(squares, shares)
        one = vector.splat(ir.Constant(vector.element, 1.0), vector.element)
        old = vector.splat(weight, vector.element)
        averages = builder.gep(data(context, builder, kinds[6], running), [at])
        for new, place in ((mean, averages), (variance, builder.gep(averages, [n_units]))):
            share_of_new = builder.fmul(builder.fsub(one, old), new)
            vector.store(vector.multiply_add(old, vector.load(place, mask), share_of_new), place, mask)
        deviation = vector.square_root(builder.fadd(variance, vector.splat(epsilon, vector.element)))
        vector.store(mean, builder.gep(data(context, builder, kinds[10], means), [at]), mask)
        place = builder.gep(data(context, builder, kinds[11], inverse_stds), [at])
        vector.store(builder.fdiv(one, deviation), place, mask)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _gradient_sums(typing, d, d_start, a, z_norm, start, row, n_rows, M, slopes, shifts, at):
    """Write the sums of d_z_tilde * z_norm and of d_z_tilde of some rows, at most as many as a vector has elements."""
    i = types.int64
    signature = types.void(d, i, a, z_norm, i, i, i, i, slopes, shifts, i)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        d, d_start, a, z_norm, start, row, n_rows, M, slopes, shifts, at = arguments
        kinds = signature.args
        vector = Vectors(builder, kinds[0].dtype, SUMS)
        places = [(d, d_start, kinds[0]), (a, start, kinds[2]), (z_norm, start, kinds[3])]
        matrices = [builder.gep(data(context, builder, kind, array), [first]) for array, first, kind in places]
        rows = list(zip(*(clamped_rows(builder, vector, m, row, n_rows) for m in matrices), strict=True))

        def add(index: int, column: Any, mask: Any, sums: Sequence[Any]) -> list[Any]:
            d_row, a_row, z_row = rows[index]
            d_z_tilde, active, normed = (vector.load(builder.gep(r, [column]), mask) for r in (d_row, a_row, z_row))
            is_active = builder.fcmp_ordered(">", active, vector.zero)
            d_z_tilde = builder.select(is_active, d_z_tilde, vector.zero)
            return [vector.multiply_add(d_z_tilde, normed, sums[0]), builder.fadd(sums[1], d_z_tilde)]

        slope, shift = row_sums(builder, vector, M, 2, add)
        mask = vector.below(n_rows)
        vector.store(slope, builder.gep(data(context, builder, kinds[8], slopes), [at]), mask)
        vector.store(shift, builder.gep(data(context, builder, kinds[9], shifts), [at]), mask)
        return context.get_dummy_value()

    return signature, generate


def _each_column(builder: Any, vector: Vectors, M: Any, do: Callable[[Any, Any], None]) -> None:
    """Write code that does something with M elements: to vectors of them, and to the rest under a mask."""
    whole = builder.sub(M, builder.srem(M, number(vector.width)))
    with cgutils.for_range_slice(builder, number(0), whole, number(vector.width)) as (column, _):
        do(column, None)
    with builder.if_then(builder.icmp_signed("<", whole, M)):
        do(whole, vector.below(builder.sub(M, whole)))


@intrinsic
def _activate(typing, z, a, start, M, centre, scale, slope, shift):
    """Turn a row of z into z_norm = (z - centre) * scale, and write ReLU(slope * z_norm + shift)."""
    i = types.int64
    signature = types.void(z, a, i, i, centre, scale, slope, shift)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        vector = Vectors(builder, kinds[0].dtype)
        z, a = (builder.gep(data(context, builder, kinds[n], arguments[n]), [arguments[2]]) for n in (0, 1))
        centre, scale, slope, shift = (vector.splat(value, vector.element) for value in arguments[4:])

        def do(column: Any, mask: Any) -> None:
            z_at, a_at = builder.gep(z, [column]), builder.gep(a, [column])
            z_norm = builder.fmul(builder.fsub(vector.load(z_at, mask), centre), scale)
            vector.store(z_norm, z_at, mask)
            z_tilde = vector.multiply_add(slope, z_norm, shift)
            is_off = builder.fcmp_ordered("<", z_tilde, vector.zero)  # false for NaN, which stays
            vector.store(builder.select(is_off, vector.zero, z_tilde), a_at, mask)

        _each_column(builder, vector, arguments[3], do)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _gradient(typing, d, d_start, a, z_norm, start, M, scale, mean, slope):
    """Turn a row of d_a into d_z = scale * d_z_tilde - mean - slope * z_norm."""
    i = types.int64
    signature = types.void(d, i, a, z_norm, i, i, scale, mean, slope)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        vector = Vectors(builder, kinds[0].dtype)
        places = ((0, 1), (2, 4), (3, 4))
        d, a, z = (builder.gep(data(context, builder, kinds[n], arguments[n]), [arguments[at]]) for n, at in places)
        scale, mean, slope = (vector.splat(value, vector.element) for value in arguments[6:])
        minus = builder.fneg(slope)

        def do(column: Any, mask: Any) -> None:
            d_at = builder.gep(d, [column])
            active, normed = (vector.load(builder.gep(m, [column]), mask) for m in (a, z))
            is_active = builder.fcmp_ordered(">", active, vector.zero)
            d_z_tilde = builder.select(is_active, vector.load(d_at, mask), vector.zero)
            rest = builder.fsub(builder.fmul(d_z_tilde, scale), mean)
            vector.store(vector.multiply_add(minus, normed, rest), d_at, mask)

        _each_column(builder, vector, arguments[5], do)
        return context.get_dummy_value()

    return signature, generate


@compiled
def normalise(
    z: Array, a: Array, start: int, row: int, M: int, unit: int, gamma: Array, beta: Array, running: Array, weight: Any,
    epsilon: Any, mean: Array, inverse_std: Array,
) -> None:  # fmt: skip
    """Turn z (H, M) of a layer into z_norm, and write its activations into a, which has the same rows.

    Args:
        z, a: flat; both start at `start`.
        unit: of the first row; mean, inverse_std (U,) and the running statistics (2, U), which are renewed, have the
            layer's from there on.
        gamma, beta: (H,).
        weight: of the old running statistics.
        epsilon: is added to the variance.
    """
    H = len(gamma)
    dtype = z.dtype.type
    share, n_units = dtype(1 / M), running.shape[1]
    width = SUMS // z.itemsize
    for first in range(0, H, width):  # so few rows at a time that they stay in the cache
        n_rows, at = min(width, H - first), unit + first
        _statistics(
            z, start + first * row, row, n_rows, M, share, running, n_units, weight, epsilon, mean, inverse_std, at
        )
        for h in range(first, first + n_rows):
            _activate(z, a, start + h * row, M, mean[unit + h], inverse_std[unit + h], gamma[h], beta[h])


@compiled
def normalise_backward(
    d: Array, d_start: int, a: Array, z_norm: Array, start: int, row: int, M: int, unit: int, gamma: Array,
    inverse_std: Array, d_gamma: Array, d_beta: Array,
) -> None:  # fmt: skip
    """Turn d_a (H, M) of a layer, which starts at d_start of d, into d_z, and write d_gamma and d_beta (H,).

    The other arguments are those of `normalise`, which has left z_norm in place of z.
    """
    H = len(gamma)
    dtype = d.dtype.type
    share = dtype(1 / M)
    width = SUMS // d.itemsize
    for first in range(0, H, width):
        n_rows, at = min(width, H - first), start + first * row
        _gradient_sums(d, d_start + first * row, a, z_norm, at, row, n_rows, M, d_gamma, d_beta, first)
        for h in range(first, first + n_rows):
            scale = gamma[h] * inverse_std[unit + h]
            mean, slope = scale * (d_beta[h] * share), scale * (d_gamma[h] * share)
            _gradient(d, d_start + h * row, a, z_norm, start + h * row, M, scale, mean, slope)
