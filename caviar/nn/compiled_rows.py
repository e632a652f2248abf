"""Sums over the rows of matrices, for batch norm and softmax.

As many rows as a vector has elements are added up side by side, so that no sum waits for another, and one more round of
additions turns their partial sums into a vector of sums. A sum has as many parts on each processor, so the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from caviar.nn.compiled_vectors import SUMS, VECTOR, Vectors, data, number

#: Sums that are held in registers at a time: they take half of those that x86-64 has.
_SUMS = {16: 2, 32: 4, 64: 16}[VECTOR]

#: From row, column, mask and the sums so far, the sums with these elements.
Step = Callable[[int, Any, Any, Sequence[Any]], Sequence[Any]]


def row_sums(builder: Any, vector: Vectors, M: Any, n_sums: int, step: Step) -> list[Any]:
    """Write code that adds up as many rows of M elements as a vector has; return a vector for each sum."""
    whole = builder.sub(M, builder.srem(M, number(vector.width)))
    sums: list[list[Any]] = []
    at_a_time = max(min(_SUMS // n_sums, vector.width), 1)
    for first in range(0, vector.width, at_a_time):
        rows = range(first, first + at_a_time)
        places = [[cgutils.alloca_once_value(builder, vector.zero) for _ in range(n_sums)] for _ in rows]

        def add(column: Any, mask: Any, rows: range = rows, places: list[list[Any]] = places) -> None:
            for row, line in zip(rows, places, strict=True):
                new = step(row, column, mask, [builder.load(place) for place in line])
                for place, value in zip(line, new, strict=True):
                    builder.store(value, place)

        for line in places:  # the allocation has its first value once, and this may run many times
            for place in line:
                builder.store(vector.zero, place)
        with cgutils.for_range_slice(builder, number(0), whole, number(vector.width)) as (column, _):
            add(column, None)
        with builder.if_then(builder.icmp_signed("<", whole, M)):
            add(whole, vector.below(builder.sub(M, whole)))
        sums += [[builder.load(place) for place in line] for line in places]
    return [vector.sums([line[index] for line in sums]) for index in range(n_sums)]


def clamped_rows(builder: Any, vector: Vectors, matrix: Any, row: Any, n_rows: Any) -> list[Any]:
    """Return pointers to as many rows as a vector has elements; where there are fewer, the last one stands for more."""
    last = builder.sub(n_rows, number(1))
    rows = []
    for index in range(vector.width):
        is_there = builder.icmp_signed("<", number(index), last)
        rows.append(builder.gep(matrix, [builder.mul(builder.select(is_there, number(index), last), row)]))
    return rows


def plain_sums(builder: Any, vector: Vectors, rows: Sequence[Any], M: Any) -> Any:
    """Write code that adds up the M elements of each row; return a vector of the sums."""

    def add(index: int, column: Any, mask: Any, sums: Sequence[Any]) -> list[Any]:
        return [builder.fadd(sums[0], vector.load(builder.gep(rows[index], [column]), mask))]

    return row_sums(builder, vector, M, 1, add)[0]


@intrinsic
def add_rows(typing, z, start, row, n_rows, M, totals, at):
    """Write the sums of some rows of z, at most as many as `SUMS` bytes have elements."""
    i = types.int64
    signature = types.void(z, i, i, i, i, totals, i)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        z, start, row, n_rows, M, totals, at = arguments
        kinds = signature.args
        vector = Vectors(builder, kinds[0].dtype, SUMS)
        rows = clamped_rows(builder, vector, builder.gep(data(context, builder, kinds[0], z), [start]), row, n_rows)

        total = plain_sums(builder, vector, rows, M)
        vector.store(total, builder.gep(data(context, builder, kinds[5], totals), [at]), vector.below(n_rows))
        return context.get_dummy_value()

    return signature, generate
