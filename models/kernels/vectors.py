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

    def added(self, a: Any, b: Any, c: Any | None) -> Any:
        """a b + c, or a b where there is no c yet."""
        return self.builder.fmul(a, b) if c is None else self.fused(a, b, c)

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


def softmax_functions(rows: int, columns: int, size: int = BYTES) -> tuple[Any, Any, Any]:
    """Passes of attention over a block of `rows` by `columns` numbers, a multiple of LANES:

    `largest(a, best)` makes `best` (columns) the largest of itself and of a's columns, where a NaN
    may count as nothing; `exponentiate(a, best, total)` puts 2^(a - best) into a's place and adds
    the columns' sums to `total`; and `weigh(a, b, logs, means)` puts p = 2^(a - log) and
    p (b - mean) into the places of a and b, where each row has a log and a mean.
    """

    def parts(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        pointers = [
            first_of(context, builder, kind, array, WORD(0))
            for kind, array in zip(kinds, arguments, strict=True)
        ]
        own = Vectors(builder, pointers[0].type.pointee, size)
        return own, pointers, range(columns // own.count)

    def row_of(builder: Any, block: Any, row: Any) -> Any:
        return builder.gep(block, [builder.mul(row, WORD(columns))])

    def registers_of(own: Any, start: Any, places: Any) -> list[Any]:
        kept = [cgutils.alloca_once(own.builder, own.kind) for _ in places]
        for place, j in zip(kept, places, strict=True):
            own.builder.store(own.load(start, j), place)
        return kept

    def write_back(own: Any, kept: list[Any], start: Any) -> None:
        for j, place in enumerate(kept):
            own.store(own.builder.load(place), start, j)

    @intrinsic
    def largest(typingctx, a, best):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            own, (block, best), places = parts(context, builder, signature, arguments)
            kept = registers_of(own, best, places)
            with cgutils.for_range(builder, WORD(rows), intp=WORD) as loop:
                row = row_of(builder, block, loop.index)
                for j, place in enumerate(kept):
                    builder.store(own.larger(own.load(row, j), builder.load(place)), place)
            write_back(own, kept, best)
            return context.get_dummy_value()

        return types.void(a, best), generate

    @intrinsic
    def exponentiate(typingctx, a, best, total):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            own, (block, best, total), places = parts(context, builder, signature, arguments)
            least = [own.load(best, j) for j in places]
            kept = registers_of(own, total, places)
            with cgutils.for_range(builder, WORD(rows), intp=WORD) as loop:
                row = row_of(builder, block, loop.index)
                for j, place in enumerate(kept):
                    power = own.exp2(builder.fsub(own.load(row, j), least[j]))
                    own.store(power, row, j)
                    builder.store(builder.fadd(builder.load(place), power), place)
            write_back(own, kept, total)
            return context.get_dummy_value()

        return types.void(a, best, total), generate

    @intrinsic
    def weigh(typingctx, a, b, logs, means):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            own, (block, other, logs, means), places = parts(context, builder, signature, arguments)
            with cgutils.for_range(builder, WORD(rows), intp=WORD) as loop:
                row, second = (row_of(builder, x, loop.index) for x in (block, other))
                log, mean = (
                    own.spread(builder.load(builder.gep(x, [loop.index]))) for x in (logs, means)
                )
                for j in places:
                    p = own.exp2(builder.fsub(own.load(row, j), log))
                    own.store(p, row, j)
                    own.store(builder.fmul(p, builder.fsub(own.load(second, j), mean)), second, j)
            return context.get_dummy_value()

        return types.void(a, b, logs, means), generate

    return largest, exponentiate, weigh
