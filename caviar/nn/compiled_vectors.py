"""Writing LLVM's vector instructions: for what no compiler makes of loops in Python."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core.cgutils import get_or_insert_function
from numba.core.codegen import get_host_cpu_features
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic

# Numba compiles for other features where its variable names them, as +avx2,+fma
_FEATURES = (get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES).split(",")
HAS_AVX512 = "+avx512f" in _FEATURES
#: Bytes of a vector register.
VECTOR = 64 if HAS_AVX512 else 32 if "+avx" in _FEATURES else 16
#: Bytes of a vector whose elements are sums: the same everywhere, so that each sum has as many parts.
SUMS = 64

I32, I64 = ir.IntType(32), ir.IntType(64)


class Vectors:
    """Writes LLVM instructions on vectors of one element type, of so many bytes, into a builder."""

    def __init__(self, builder: Any, dtype: Any, n_bytes: int = VECTOR) -> None:
        self.builder = builder
        self.size = 4 if dtype == types.float32 else 8
        self.element = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.width = n_bytes // self.size
        self.type = ir.VectorType(self.element, self.width)
        self.suffix = f"v{self.width}f{8 * self.size}"
        self.zero = ir.Constant(self.type, [0.0] * self.width)

    def splat(self, scalar: Any, element: Any) -> Any:
        """Return a vector of one scalar."""
        undefined = ir.Constant(ir.VectorType(element, self.width), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, self.width), [0] * self.width)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def lane(self, vector: Any, index: int) -> Any:
        """Return a vector of one element of a vector."""
        undefined = ir.Constant(self.type, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(I32, self.width), [index] * self.width)
        return self.builder.shuffle_vector(vector, undefined, lanes)

    def sums(self, vectors: list[Any]) -> Any:
        """Return a vector of the sums over the elements of each of as many vectors as one has elements."""
        while len(vectors) > 1:
            half = len(vectors) // 2
            pairs = [self.interleave(vectors[row], vectors[row + half]) for row in range(half)]
            vectors = [self.builder.fadd(lower, upper) for lower, upper in pairs]
        return vectors[0]

    def below(self, n: Any) -> Any:
        """Return the mask of the first n lanes."""
        lanes = ir.Constant(ir.VectorType(I64, self.width), list(range(self.width)))
        return self.builder.icmp_signed("<", lanes, self.splat(n, I64))

    def load(self, pointer: Any, mask: Any = None) -> Any:
        """Return what is at a pointer to an element; lanes that are masked out are not read, and 0."""
        place = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            value = self.builder.load(place)
            value.align = self.size
            return value
        kind = ir.FunctionType(self.type, [place.type, I32, mask.type, self.type])
        masked = get_or_insert_function(self.builder.module, kind, f"llvm.masked.load.{self.suffix}.p0")
        return self.builder.call(masked, [place, ir.Constant(I32, self.size), mask, self.zero])

    def store(self, value: Any, pointer: Any, mask: Any = None) -> None:
        """Write to a pointer to an element; lanes that are masked out are left alone."""
        place = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            self.builder.store(value, place).align = self.size
            return
        kind = ir.FunctionType(ir.VoidType(), [self.type, place.type, I32, mask.type])
        masked = get_or_insert_function(self.builder.module, kind, f"llvm.masked.store.{self.suffix}.p0")
        self.builder.call(masked, [value, place, ir.Constant(I32, self.size), mask])

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return a * b + c, rounded once."""
        kind = ir.FunctionType(self.type, [self.type] * 3)
        return self.builder.call(
            get_or_insert_function(self.builder.module, kind, f"llvm.fma.{self.suffix}"), [a, b, c]
        )

    def square_root(self, a: Any) -> Any:
        """Return the square roots."""
        kind = ir.FunctionType(self.type, [self.type])
        return self.builder.call(get_or_insert_function(self.builder.module, kind, f"llvm.sqrt.{self.suffix}"), [a])

    def interleave(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Return a0 b0 a1 b1 ... of the lower halves, and of the upper halves."""
        lanes = [lane for pair in range(self.width) for lane in (pair, pair + self.width)]
        kind = ir.VectorType(I32, self.width)
        lower, upper = (ir.Constant(kind, half) for half in (lanes[: self.width], lanes[self.width :]))
        return self.builder.shuffle_vector(a, b, lower), self.builder.shuffle_vector(a, b, upper)


@intrinsic
def fused(typing, a, b, c):
    """Return a * b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = arguments[0].type
        suffix = "f32" if element == ir.FloatType() else "f64"
        kind = ir.FunctionType(element, [element] * 3)
        return builder.call(get_or_insert_function(builder.module, kind, f"llvm.fma.{suffix}"), arguments)

    return (a(a, b, c), generate) if a == b == c else None


@intrinsic
def writable(typing, array):
    """Return an array as one that may be written to, which it must not be: so that code is compiled for one type."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return impl_ret_borrowed(context, builder, signature.return_type, arguments[0])

    return array.copy(readonly=False)(array), generate


def data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return the pointer to an array's first element."""
    return context.make_array(kind)(context, builder, array).data


def number(n: int) -> Any:
    """Return a constant."""
    return ir.Constant(I64, n)


def opaque(builder: Any, value: Any) -> Any:
    """Return a value of which the compiler does not know where it comes from; a loop that has one is not unrolled."""
    call = builder.asm(ir.FunctionType(value.type, [value.type]), "", "=r,0", [value], False)
    call.attributes.add("convergent")
    return call
