"""Passes over short rows in the processor's widest vectors, written in LLVM's instructions.

numba turns most loops into vectors by itself. It does not for a maximum, as the order of
comparisons shows where there is a NaN, it takes half the width of AVX-512 on Intel's processors,
and it keeps no tile of a matrix in registers (`tile`). What is here does, for fp32 and fp64.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from models.kernels.compiled import POWERS, TINY

WORD, LANE = ir.IntType(64), ir.IntType(32)
CONTRACT = ("contract",)  # a product and a sum are one instruction where the processor has it
LANES = 16  # numbers of the widest vector there is: rows are multiples of it


def registers() -> tuple[int, int]:
    """Bytes of this processor's vectors, and how many of them it has."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 32
    if features.get("avx"):
        return 32, 16
    return 16, 32 if binding.get_default_triple().startswith(("aarch64", "arm64")) else 16


BYTES, REGISTERS = registers()


class Vectors:
    """Vectors of one kind of number, as a builder of LLVM's instructions makes them."""

    def __init__(self, builder: Any, element: Any, size: int = BYTES) -> None:
        self.builder, self.element = builder, element
        self.bytes_each = 4 if isinstance(element, ir.FloatType) else 8
        self.count = size // self.bytes_each
        self.kind = ir.VectorType(element, self.count)

    def at(self, pointer: Any, number: int) -> Any:
        """The place of the vector with that number in a row."""
        place = self.builder.gep(pointer, [WORD(number * self.count)])
        return self.builder.bitcast(place, self.kind.as_pointer())

    def load(self, pointer: Any, number: int) -> Any:
        value = self.builder.load(self.at(pointer, number))
        value.align = self.bytes_each  # a row begins anywhere
        return value

    def store(self, value: Any, pointer: Any, number: int) -> None:
        self.builder.store(value, self.at(pointer, number)).align = self.bytes_each

    def constant(self, number: float) -> Any:
        return ir.Constant(self.kind, [number] * self.count)

    def spread(self, number: Any) -> Any:
        """A number in every lane."""
        nothing = ir.Constant(self.kind, ir.Undefined)
        first = self.builder.insert_element(nothing, number, LANE(0))
        return self._turned(first, [0] * self.count)

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c."""
        return self.builder.fadd(self.builder.fmul(a, b, flags=CONTRACT), c, flags=CONTRACT)

    def abs(self, x: Any) -> Any:
        return self._call("llvm.fabs", x)

    def flushed(self, x: Any) -> Any:
        """As `compiled.flushed`: zero for what is tiny, and a NaN stays one."""
        tiny = self.builder.fcmp_ordered("<=", self.abs(x), self.constant(TINY))
        return self.builder.select(tiny, self.constant(0.0), x)

    def larger(self, x: Any, y: Any) -> Any:
        """x where it is, else y, where a NaN among both is y."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, y), x, y)

    def total(self, vectors: Sequence[Any], join: Callable[[Any, Any], Any]) -> Any:
        """One number of a power of two of vectors, joined in pairs."""
        left = list(vectors)
        while len(left) > 1:
            left = [join(x, y) for x, y in zip(left[::2], left[1::2], strict=True)]
        half = self.count
        while half > 1:
            half //= 2
            turned = self._turned(left[0], [(i + half) % self.count for i in range(self.count)])
            left = [join(left[0], turned)]
        return self.builder.extract_element(left[0], LANE(0))

    def sum(self, vectors: Sequence[Any]) -> Any:
        return self.total(vectors, lambda x, y: self.builder.fadd(x, y))

    def add_sums(self, vectors: Sequence[Any], pointer: Any) -> None:
        """Add the sum over the lanes of each to the numbers side by side at a pointer."""
        if self.count < len(vectors):  # as of fp64 in 16 bytes
            self._add([self.sum([vector]) for vector in vectors], pointer)
            return
        # Halves of two vectors are added side by side, until one vector holds parts of all.
        left, each = list(vectors), self.count
        while each > 1:
            each //= 2
            if len(left) > 1:
                left = [
                    self._halved(x, y, each) for x, y in zip(left[::2], left[1::2], strict=True)
                ]
            else:
                left = [self._halved(left[0], None, each)]
        lanes = range(len(vectors))
        self._add([self.builder.extract_element(left[0], LANE(i)) for i in lanes], pointer)

    def _add(self, numbers: Sequence[Any], pointer: Any) -> None:
        # LLVM makes one load and one store of them where the numbers are lanes of a vector.
        for i, number in enumerate(numbers):
            place = self.builder.gep(pointer, [WORD(i)])
            self.builder.store(self.builder.fadd(self.builder.load(place), number), place)

    def _halved(self, x: Any, y: Any | None, each: int) -> Any:
        """Runs of 2 `each` lanes, of x and then of y, folded to runs of `each`."""
        lanes = (1 if y is None else 2) * x.type.count
        other = x if y is None else y
        build = self.builder
        low, high = (
            ir.Constant(
                ir.VectorType(LANE, lanes // 2),
                [i for i in range(lanes) if (i // each) % 2 == half],
            )
            for half in (0, 1)
        )
        return build.fadd(build.shuffle_vector(x, other, low), build.shuffle_vector(x, other, high))

    def exp2(self, x: Any) -> Any:
        """2^x for x <= 127, and of a NaN a NaN. In fp32 it is 2^-126 for all that is less."""
        if self.bytes_each == 8:
            return self._call("llvm.exp2", x)
        # As `compiled.exp2`: a power of the integer, times a polynomial of what is left.
        build = self.builder
        x = self.larger(self.constant(-126.0), x)
        whole = self._call("llvm.floor", build.fadd(x, self.constant(0.5)))
        f = build.fsub(x, whole)
        p = [self.constant(float(c)) for c in POWERS]
        f2 = build.fmul(f, f)
        high = self.fused(f2, self.fused(p[5], f, p[4]), self.fused(p[3], f, p[2]))
        power = self.fused(f2, high, self.fused(p[1], f, p[0]))
        integers = ir.VectorType(LANE, self.count)
        biased = build.add(build.fptosi(whole, integers), ir.Constant(integers, [127] * self.count))
        bits = build.shl(biased, ir.Constant(integers, [23] * self.count))
        return build.fmul(power, build.bitcast(bits, self.kind))

    def _turned(self, vector: Any, order: Sequence[int]) -> Any:
        lanes = ir.Constant(ir.VectorType(LANE, self.count), list(order))
        return self.builder.shuffle_vector(vector, vector, lanes)

    def _call(self, name: str, x: Any) -> Any:
        kind, module = ir.FunctionType(self.kind, [self.kind]), self.builder.module
        name = f"{name}.v{self.count}f{8 * self.bytes_each}"
        return self.builder.call(cgutils.get_or_insert_function(module, kind, name), [x])


def first_of(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """A pointer on the number with that index of an array, counted as it lies in memory."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def row_functions(count: int, size: int = BYTES) -> tuple[Any, Any, Any]:
    """Functions of a row of `count` numbers, a power of two and a multiple of LANES:

    `largest(a, a0)` of a[a0 : a0 + count], where a NaN may count as nothing; `exponentiate(a, a0,
    least)`, which puts 2^(a - least) into their place and returns its sum; and `weigh(a, b, a0,
    log, mean)`, which puts p = 2^(a - log) and p (b - mean) into the places of a and b.
    """

    def rows(context: Any, builder: Any, signature: Any, arguments: Any, arrays: int) -> Any:
        kinds, at = signature.args, arguments[arrays]
        pointers = [first_of(context, builder, kinds[i], arguments[i], at) for i in range(arrays)]
        own = Vectors(builder, pointers[0].type.pointee, size)
        return own, pointers, range(count // own.count)

    @intrinsic
    def largest(typingctx, a, a0):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            own, (row,), places = rows(context, builder, signature, arguments, 1)
            return own.total([own.load(row, j) for j in places], own.larger)

        return a.dtype(a, types.intp), generate

    @intrinsic
    def exponentiate(typingctx, a, a0, least):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            own, (row,), places = rows(context, builder, signature, arguments, 1)
            least, powers = own.spread(arguments[2]), []
            for j in places:
                powers.append(own.exp2(builder.fsub(own.load(row, j), least)))
                own.store(powers[-1], row, j)
            return own.sum(powers)

        return a.dtype(a, types.intp, a.dtype), generate

    @intrinsic
    def weigh(typingctx, a, b, a0, log, mean):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            own, (row, other), places = rows(context, builder, signature, arguments, 2)
            log, mean = own.spread(arguments[3]), own.spread(arguments[4])
            for j in places:
                p = own.exp2(builder.fsub(own.load(row, j), log))
                own.store(p, row, j)
                own.store(builder.fmul(p, builder.fsub(own.load(other, j), mean)), other, j)
            return context.get_dummy_value()

        return types.void(a, b, types.intp, a.dtype, a.dtype), generate

    return largest, exponentiate, weigh
