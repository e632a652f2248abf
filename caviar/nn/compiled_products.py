"""Matrix products and transposition of the compiled kernel.

A BLAS copies its operands into blocks first, which pays for large matrices and costs up to a third of the time for
ours. Here a tile of C stays in the processor's registers while one loop runs over k. It is written in LLVM's vector
instructions, since no compiler keeps a tile in registers that is written as loops in Python.

All matrices are parts of flat arrays, given by where they start and by the distance of their rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from caviar.nn.compiled_cache import compiled_apart

Array = np.ndarray

_FEATURES = binding.get_host_cpu_features()
_HAS_AVX512 = bool(_FEATURES.get("avx512f"))
#: Bytes of a vector register.
_VECTOR = 64 if _HAS_AVX512 else 32 if _FEATURES.get("avx") else 16
#: A tile of C is so many rows by so many vectors: with AVX-512 it fills 24 of 32 registers, else 12 of 16.
_ROWS, _VECTORS = 12 if _HAS_AVX512 else 6, 2

_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


class _Vectors:
    """Writes LLVM instructions on vectors of one element type into a builder."""

    def __init__(self, builder: Any, dtype: Any) -> None:
        self.builder = builder
        self.size = 4 if dtype == types.float32 else 8
        self.element = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.width = _VECTOR // self.size
        self.type = ir.VectorType(self.element, self.width)
        self.suffix = f"v{self.width}f{8 * self.size}"
        self.zero = ir.Constant(self.type, [0.0] * self.width)

    def splat(self, scalar: Any, element: Any) -> Any:
        """Return a vector of one scalar."""
        undefined = ir.Constant(ir.VectorType(element, self.width), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        zeros = ir.Constant(ir.VectorType(_I32, self.width), [0] * self.width)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def below(self, n: Any) -> Any:
        """Return the mask of the first n lanes."""
        lanes = ir.Constant(ir.VectorType(_I64, self.width), list(range(self.width)))
        return self.builder.icmp_signed("<", lanes, self.splat(n, _I64))

    def load(self, pointer: Any, mask: Any = None) -> Any:
        """Return what is at a pointer to an element; lanes that are masked out are not read, and 0."""
        place = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            value = self.builder.load(place)
            value.align = self.size
            return value
        kind = ir.FunctionType(self.type, [place.type, _I32, mask.type, self.type])
        masked = get_or_insert_function(self.builder.module, kind, f"llvm.masked.load.{self.suffix}.p0")
        return self.builder.call(masked, [place, ir.Constant(_I32, self.size), mask, self.zero])

    def store(self, value: Any, pointer: Any, mask: Any = None) -> None:
        """Write to a pointer to an element; lanes that are masked out are left alone."""
        place = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            self.builder.store(value, place).align = self.size
            return
        kind = ir.FunctionType(ir.VoidType(), [self.type, place.type, _I32, mask.type])
        masked = get_or_insert_function(self.builder.module, kind, f"llvm.masked.store.{self.suffix}.p0")
        self.builder.call(masked, [value, place, ir.Constant(_I32, self.size), mask])

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return a * b + c, rounded once."""
        kind = ir.FunctionType(self.type, [self.type] * 3)
        return self.builder.call(
            get_or_insert_function(self.builder.module, kind, f"llvm.fma.{self.suffix}"), [a, b, c]
        )

    def interleave(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Return a0 b0 a1 b1 ... of the lower halves, and of the upper halves."""
        lanes = [lane for pair in range(self.width) for lane in (pair, pair + self.width)]
        kind = ir.VectorType(_I32, self.width)
        lower, upper = (ir.Constant(kind, half) for half in (lanes[: self.width], lanes[self.width :]))
        return self.builder.shuffle_vector(a, b, lower), self.builder.shuffle_vector(a, b, upper)


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


def _number(n: int) -> Any:
    return ir.Constant(_I64, n)


def _tile(vectors: int, is_masked: bool) -> Any:
    """Make the function that computes a tile of C = A B, of any number of rows up to `_ROWS`.

    Its columns are `vectors` whole vectors or, where it is masked, the first `n_columns` of one.
    """

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        typing, c, c_start, c_row, a, a_start, a_row, a_column, b, b_start, b_row, n_rows, n_columns, K
    ):
        """Write C[:n_rows] = A[:n_rows] B, with K products in each sum."""
        integers = [types.int64] * 3
        signature = types.void(c, *integers[:2], a, *integers, b, *integers[:2], *integers)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            # inlined in each place where a product is called, the sums would not stay in registers
            builder.function.attributes.add("noinline")
            c, c_start, c_row, a, a_start, a_row, a_column, b, b_start, b_row, n_rows, n_columns, K = arguments
            kinds = signature.args
            c = builder.gep(_data(context, builder, kinds[0], c), [c_start])
            a = builder.gep(_data(context, builder, kinds[3], a), [a_start])
            b = builder.gep(_data(context, builder, kinds[7], b), [b_start])
            vector = _Vectors(builder, kinds[0].dtype)
            mask = vector.below(n_columns) if is_masked else None
            entry, end = builder.block, builder.append_basic_block("end")
            switch = builder.switch(n_rows, end)
            for height in range(1, _ROWS + 1):
                start, loop = (builder.append_basic_block(f"{name}{height}") for name in ("start", "loop"))
                switch.add_case(_number(height), start)
                builder.position_at_end(start)
                rows = [builder.gep(a, [builder.mul(_number(row), a_row)]) for row in range(height)]
                builder.branch(loop)
                builder.position_at_end(loop)
                k = builder.phi(_I64)
                sums = [[builder.phi(vector.type) for _ in range(vectors)] for _ in rows]
                across, along = builder.mul(k, b_row), builder.mul(k, a_column)
                right = [
                    vector.load(builder.gep(b, [builder.add(across, _number(v * vector.width))]), mask)
                    for v in range(vectors)
                ]
                added = []
                for row, line in zip(rows, sums, strict=True):
                    left = vector.splat(builder.load(builder.gep(row, [along])), vector.element)
                    added.append([vector.multiply_add(left, r, s) for r, s in zip(right, line, strict=True)])
                following = builder.add(k, _number(1))
                changing = [(k, _number(0), following)]
                for line, new in zip(sums, added, strict=True):
                    changing += [(old, vector.zero, later) for old, later in zip(line, new, strict=True)]
                for phi, first, later in changing:
                    phi.add_incoming(first, start)
                    phi.add_incoming(later, loop)
                done = builder.append_basic_block(f"done{height}")
                builder.cbranch(builder.icmp_signed("<", following, K), loop, done)
                builder.position_at_end(done)
                for row, line in enumerate(added):
                    target = builder.gep(c, [builder.mul(_number(row), c_row)])
                    for v, value in enumerate(line):
                        vector.store(value, builder.gep(target, [_number(v * vector.width)]), mask)
                builder.branch(end)
            assert entry.is_terminated
            builder.position_at_end(end)
            return context.get_dummy_value()

        return signature, generate

    return tile


_whole_tile, _edge_tile = _tile(_VECTORS, is_masked=False), _tile(1, is_masked=True)


@intrinsic
def _transpose_square(typing, source, s_start, s_row, target, t_start, t_row):  # type: ignore[no-untyped-def]
    """Transpose a square of as many rows as a vector has elements."""
    signature = types.void(source, types.int64, types.int64, target, types.int64, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, s_start, s_row, target, t_start, t_row = arguments
        vector = _Vectors(builder, signature.args[3].dtype)
        source = builder.gep(_data(context, builder, signature.args[0], source), [s_start])
        target = builder.gep(_data(context, builder, signature.args[3], target), [t_start])
        lines = [vector.load(builder.gep(source, [builder.mul(_number(row), s_row)])) for row in range(vector.width)]
        half = vector.width // 2
        for _ in range(vector.width.bit_length() - 1):
            # as shuffling cards: after log2(width) perfect shuffles, rows have become columns
            lines = [line for row in range(half) for line in vector.interleave(lines[row], lines[row + half])]
        for row, line in enumerate(lines):
            vector.store(line, builder.gep(target, [builder.mul(_number(row), t_row)]))
        return context.get_dummy_value()

    return signature, generate


@compiled_apart
def product(
    c: Array, c_start: int, c_row: int,
    a: Array, a_start: int, a_row: int, a_column: int,
    b: Array, b_start: int, b_row: int,
    H: int, K: int, M: int,
) -> None:  # fmt: skip
    """Write C (H, M) = A (H, K) B (K, M); A[h, k] is a[a_start + h * a_row + k * a_column], so A may be transposed.

    Each element is one sum in the order of k, whatever its place in C.
    """
    width = _VECTOR // c.itemsize
    n_tiles = (H + _ROWS - 1) // _ROWS
    height, n_higher = H // n_tiles, H % n_tiles  # tiles of nearly equal height
    column = 0
    while column < M:
        is_whole = M - column >= _VECTORS * width
        n_columns = _VECTORS * width if is_whole else min(M - column, width)
        row = 0
        for tile in range(n_tiles):
            n_rows = height + (tile < n_higher)
            c_at, a_at = c_start + row * c_row + column, a_start + row * a_row
            if is_whole:
                _whole_tile(c, c_at, c_row, a, a_at, a_row, a_column, b, b_start + column, b_row, n_rows, n_columns, K)
            else:
                _edge_tile(c, c_at, c_row, a, a_at, a_row, a_column, b, b_start + column, b_row, n_rows, n_columns, K)
            row += n_rows
        column += n_columns


@compiled_apart
def transpose(
    source: Array, s_start: int, s_row: int, target: Array, t_start: int, t_row: int, n_rows: int, n_columns: int
) -> None:
    """Write target (n_columns, n_rows) = source (n_rows, n_columns), transposed."""
    width = _VECTOR // target.itemsize
    whole_rows, whole_columns = n_rows // width * width, n_columns // width * width
    for row in range(0, whole_rows, width):
        for column in range(0, whole_columns, width):
            _transpose_square(
                source, s_start + row * s_row + column, s_row, target, t_start + column * t_row + row, t_row
            )
        for column in range(whole_columns, n_columns):
            for r in range(row, row + width):
                target[t_start + column * t_row + r] = source[s_start + r * s_row + column]
    for row in range(whole_rows, n_rows):
        for column in range(n_columns):
            target[t_start + column * t_row + row] = source[s_start + row * s_row + column]
