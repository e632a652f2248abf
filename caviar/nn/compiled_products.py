"""Matrix products of the compiled kernel.

A BLAS copies both operands into blocks first, which pays for large matrices and costs up to a third of the time for
ours. Here a tile of C stays in the processor's registers while one loop runs over k. It is written in LLVM's vector
instructions, since no compiler keeps a tile in registers that is written as loops in Python. B alone is copied, where
it pays or has to be: a panel of it, two vectors wide, lies side by side in the cache while all tiles of its columns are
computed. Rows in any order, and rows that are to be columns, come at no further cost then: no mini-batch is gathered,
and nothing transposed.

All matrices are parts of flat arrays, given by where they start and by the distance of their rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from caviar.nn.compiled_cache import compiled, compiled_apart
from caviar.nn.compiled_vectors import HAS_AVX512, I64, VECTOR, Vectors, data, number, opaque

Array = np.ndarray

#: A tile of C is so many rows by so many vectors: with AVX-512 it fills 24 of 32 registers, else 12 of 16.
_ROWS, _VECTORS = 12 if HAS_AVX512 else 6, 2
_PANEL_ROW = _VECTORS * VECTOR  # bytes
#: Bytes of a row of C up to which a tile of one vector takes less time than one of all.
_NARROW = VECTOR if HAS_AVX512 else 0
#: Bytes of a panel: it stays in the first-level cache, beside the rows of A that pass by.
PANEL = 24 * 1024
#: A plain B of so many bytes stays there as it is.
_SMALL = 16 * 1024

#: How B lies: as it is; its rows are those listed; or its columns are the rows that are listed.
PLAIN, LISTED, TURNED = range(3)


def _tile(vectors: int, is_masked: bool) -> Any:
    """Make the function that computes a tile of C = A B, or adds to it, of any number of rows up to `_ROWS`.

    Its columns are `vectors` whole vectors or, where it is masked, the first `n_columns` of one.
    """

    @intrinsic
    def tile(typing, c, c_start, c_row, a, a_start, a_row, a_column, b, b_start, b_row, n_rows, n_columns, K, is_more):
        """Write C[:n_rows] = A[:n_rows] B, with K products in each sum; where there is more in C, go on with that."""
        integers = [types.int64] * 3
        signature = types.void(c, *integers[:2], a, *integers, b, *integers[:2], *integers, types.int64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            # inlined in each place where a product is called, the sums would not stay in registers
            builder.function.attributes.add("noinline")
            c, c_start, c_row, a, a_start, a_row, a_column, b, b_start, b_row, n_rows, n_columns, K, is_more = arguments
            kinds = signature.args
            c = builder.gep(data(context, builder, kinds[0], c), [c_start])
            a = builder.gep(data(context, builder, kinds[3], a), [a_start])
            b = builder.gep(data(context, builder, kinds[7], b), [b_start])
            vector = Vectors(builder, kinds[0].dtype)
            mask = vector.below(n_columns) if is_masked else None
            entry, end = builder.block, builder.append_basic_block("end")
            switch = builder.switch(n_rows, end)
            for height in range(1, _ROWS + 1):
                start, loop = (builder.append_basic_block(f"{name}{height}") for name in ("start", "loop"))
                switch.add_case(number(height), start)
                builder.position_at_end(start)
                # of one pointer LLVM would make all the others, in a chain of additions longer than the products take
                bases = [
                    opaque(builder, builder.gep(a, [builder.mul(number(row), a_row)])) for row in range(0, height, 3)
                ]
                targets = [builder.gep(c, [builder.mul(number(row), c_row)]) for row in range(height)]
                places = [[builder.gep(t, [number(v * vector.width)]) for v in range(vectors)] for t in targets]
                going_on = builder.append_basic_block(f"going_on{height}")
                builder.cbranch(builder.icmp_signed("!=", is_more, number(0)), going_on, loop)
                builder.position_at_end(going_on)
                before = [[vector.load(place, mask) for place in line] for line in places]
                builder.branch(loop)
                builder.position_at_end(loop)
                k, b_at = builder.phi(I64), builder.phi(b.type)
                firsts = [builder.phi(a.type) for _ in bases]
                sums = [[builder.phi(vector.type) for _ in range(vectors)] for _ in range(height)]
                right = [vector.load(builder.gep(b_at, [number(v * vector.width)]), mask) for v in range(vectors)]
                added = []
                for row, line in enumerate(sums):
                    place = builder.gep(firsts[row // 3], [builder.mul(number(row % 3), a_row)])
                    left = vector.splat(builder.load(place), vector.element)
                    added.append([vector.multiply_add(left, r, s) for r, s in zip(right, line, strict=True)])
                following = opaque(builder, builder.add(k, number(1)))  # unrolled, it would need more registers
                changing = [(k, number(0), number(0), following), (b_at, b, b, builder.gep(b_at, [b_row]))]
                changing += [(f, base, base, builder.gep(f, [a_column])) for f, base in zip(firsts, bases, strict=True)]
                for lines in zip(sums, before, added, strict=True):
                    changing += [(phi, vector.zero, old, new) for phi, old, new in zip(*lines, strict=True)]
                for phi, zero, old, new in changing:
                    phi.add_incoming(zero, start)
                    phi.add_incoming(old, going_on)
                    phi.add_incoming(new, loop)
                done = builder.append_basic_block(f"done{height}")
                builder.cbranch(builder.icmp_signed("<", following, K), loop, done)
                builder.position_at_end(done)
                for line, values in zip(places, added, strict=True):
                    for place, value in zip(line, values, strict=True):
                        vector.store(value, place, mask)
                builder.branch(end)
            assert entry.is_terminated
            builder.position_at_end(end)
            return context.get_dummy_value()

        return signature, generate

    return tile


_whole_tile, _edge_tile = _tile(_VECTORS, is_masked=False), _tile(1, is_masked=True)


@intrinsic
def _copy_line(typing, source, s_at, target, t_at):
    """Copy one row of a panel."""
    signature = types.void(source, types.int64, target, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, s_at, target, t_at = arguments
        vector = Vectors(builder, signature.args[0].dtype)
        source = builder.gep(data(context, builder, signature.args[0], source), [s_at])
        target = builder.gep(data(context, builder, signature.args[2], target), [t_at])
        for v in range(_VECTORS):
            place = number(v * vector.width)
            vector.store(vector.load(builder.gep(source, [place])), builder.gep(target, [place]))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _turn_square(typing, source, s_start, s_row, lines, first, target, t_start):
    """Write a square of a panel: its columns are rows of the source, those that are listed from `first` on."""
    signature = types.void(source, types.int64, types.int64, lines, types.int64, target, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, s_start, s_row, lines, first, target, t_start = arguments
        vector = Vectors(builder, signature.args[5].dtype)
        source = builder.gep(data(context, builder, signature.args[0], source), [s_start])
        lines = builder.gep(data(context, builder, signature.args[3], lines), [first])
        target = builder.gep(data(context, builder, signature.args[5], target), [t_start])
        square = []
        for row in range(vector.width):
            line = builder.load(builder.gep(lines, [number(row)]))
            square.append(vector.load(builder.gep(source, [builder.mul(line, s_row)])))
        half = vector.width // 2
        for _ in range(vector.width.bit_length() - 1):
            # as shuffling cards: after log2(width) perfect shuffles, rows have become columns
            square = [line for row in range(half) for line in vector.interleave(square[row], square[row + half])]
        for row, line in enumerate(square):
            vector.store(line, builder.gep(target, [number(row * _VECTORS * vector.width)]))
        return context.get_dummy_value()

    return signature, generate


@compiled
def _copy_panel(
    panel: Array, row: int, b: Array, b_start: int, b_row: int, lines: Array, kind: int,
    first: int, n: int, column: int, n_columns: int,
) -> None:  # fmt: skip
    """Copy B[first : first + n, column : column + n_columns] to where it lies side by side, in rows of a panel."""
    width = VECTOR // panel.itemsize
    if kind == TURNED:
        squares_high, squares_wide = n // width * width, n_columns // width * width
        for k in range(0, squares_high, width):
            for m in range(0, squares_wide, width):
                _turn_square(b, b_start + first + k, b_row, lines, column + m, panel, k * row + m)
        for m in range(n_columns):
            at = b_start + first + lines[column + m] * b_row
            for k in range(squares_high if m < squares_wide else 0, n):
                panel[k * row + m] = b[at + k]
        return
    for k in range(n):
        at = b_start + (lines[first + k] if kind == LISTED else first + k) * b_row + column
        if n_columns == row:
            _copy_line(b, at, panel, k * row)
        else:
            for m in range(n_columns):
                panel[k * row + m] = b[at + m]


@compiled_apart
def _multiply(
    c: Array, c_at: int, c_row: int,
    a: Array, a_at: int, a_row: int, a_column: int,
    b: Array, b_at: int, b_row: int,
    H: int, K: int, n_columns: int, is_more: int,
) -> None:  # fmt: skip
    """Write some columns of C, a panel or fewer than a vector, or go on with the sums that are there."""
    n_tiles = (H + _ROWS - 1) // _ROWS
    height, n_higher = H // n_tiles, H % n_tiles  # tiles of nearly equal height
    is_whole = n_columns == _PANEL_ROW // c.itemsize
    for tile in range(n_tiles):
        n_rows = height + (tile < n_higher)
        if is_whole:
            _whole_tile(c, c_at, c_row, a, a_at, a_row, a_column, b, b_at, b_row, n_rows, n_columns, K, is_more)
        else:
            _edge_tile(c, c_at, c_row, a, a_at, a_row, a_column, b, b_at, b_row, n_rows, n_columns, K, is_more)
        c_at += n_rows * c_row
        a_at += n_rows * a_row


@compiled_apart
def product(
    c: Array, c_start: int, c_row: int,
    a: Array, a_start: int, a_row: int, a_column: int,
    b: Array, b_start: int, b_row: int, lines: Array, kind: int,
    panel: Array, H: int, K: int, M: int,
) -> None:  # fmt: skip
    """Write C (H, M) = A (H, K) B (K, M), with A[h, k] = a[a_start + h * a_row + k * a_column]: A may be transposed.

    B[k, m] is, by kind: PLAIN, b[b_start + k * b_row + m]; LISTED, b[b_start + lines[k] * b_row + m]; TURNED,
    b[b_start + lines[m] * b_row + k]. Each element is one sum in the order of k, whatever its place in C. What is in
    `panel`, `PANEL` bytes that start with a vector's, is lost: made here, it would cost a small product twice its
    time, for itself and for the counts of who holds the other arrays.
    """
    width = VECTOR // c.itemsize
    row = _VECTORS * width
    is_copied = kind != PLAIN or (H > 2 * _ROWS and K * M * c.itemsize > _SMALL)
    start, depth = np.int64(0), K
    if is_copied:  # in parts of nearly equal depth
        n_parts = (K * _PANEL_ROW + PANEL - 1) // PANEL
        depth = ((K + n_parts - 1) // n_parts + width - 1) // width * width
    for first in range(0, K, depth):
        n = min(depth, K - first)
        column = 0
        while column < M:
            n_columns = row if M - column >= row else min(M - column, width)
            if M - column < row and depth >= K:
                # to the same bits, some columns are computed twice: that is quicker than to go by single elements
                n_columns = row if row <= M and M - column > _NARROW // c.itemsize else min(width, M)
                column = min(column, M - n_columns)
            c_at, a_at = c_start + column, a_start + first * a_column
            if is_copied:
                _copy_panel(panel, row, b, b_start, b_row, lines, kind, first, n, column, n_columns)
                _multiply(c, c_at, c_row, a, a_at, a_row, a_column, panel, start, row, H, n, n_columns, first)
            else:
                b_at = b_start + column
                _multiply(c, c_at, c_row, a, a_at, a_row, a_column, b, b_at, b_row, H, n, n_columns, first)
            column += n_columns
