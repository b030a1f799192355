"""The inner loops of Mamba-1's scan over a chunk of time, with states in registers.

A vector of channels takes 4 states through a chunk before the next 4 begin: they, their adjoints
and their rates stay in registers, and what a step adds to its sums is one load and one store for
all 4. What the backward needs is written and read in one stream.

Shapes: N states, a multiple of STATES; CHUNK steps; BLOCK channels, of V vectors. Arrays have one
dimension: A2 and the like are (N, BLOCK), those of a step (CHUNK, BLOCK), B and C (CHUNK, N);
`decays` is (V, N / STATES, CHUNK, STATES, lanes) and `states` the same with CHUNK + 1 of them, the
first of which are those before the chunk.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from models.kernels.vectors import BYTES, WORD, Vectors, first_of

STATES = 4
CHUNK = 16
BLOCK = 128
TINY = 1e-30  # below it a number is on its way to the denormals, see `compiled.flushed`


def _flushed(own: Vectors, x: Any) -> Any:
    """Zero for what is tiny; a NaN stays one."""
    tiny = own.builder.fcmp_ordered("<=", own.abs(x), own.constant(TINY))
    return own.builder.select(tiny, own.constant(0.0), x)


def _registers(own: Vectors, values: Sequence[Any]) -> list[Any]:
    """Places that LLVM turns into registers, as nothing takes their address."""
    places = [cgutils.alloca_once(own.builder, own.kind) for _ in values]
    for place, value in zip(places, values, strict=True):
        own.builder.store(value, place)
    return places


class _Walk:
    """Addresses of what a vector of channels and 4 states need, as loops go on."""

    def __init__(self, own: Vectors, N: Any, vector: Any, group: Any) -> None:
        self.own, self.N = own, N
        build = own.builder
        self.lane = build.mul(vector, WORD(own.count))
        self.first = build.mul(group, WORD(STATES))
        groups = build.udiv(N, WORD(STATES))
        self.stream = build.add(build.mul(vector, groups), group)

    def state(self, array: Any, i: int) -> Any:
        """In (N, BLOCK)."""
        build = self.own.builder
        row = build.mul(build.add(self.first, WORD(i)), WORD(BLOCK))
        return build.gep(array, [build.add(row, self.lane)])

    def step(self, array: Any, k: Any) -> Any:
        """In (CHUNK, BLOCK)."""
        build = self.own.builder
        return build.gep(array, [build.add(build.mul(k, WORD(BLOCK)), self.lane)])

    def coefficients(self, array: Any, k: Any) -> Any:
        """The 4 numbers in (CHUNK, N)."""
        build = self.own.builder
        return build.gep(array, [build.add(build.mul(k, self.N), self.first)])

    def kept(self, array: Any, steps: int, k: Any) -> Any:
        """The 4 vectors of a step in a stream of that many steps."""
        build = self.own.builder
        step = build.add(build.mul(self.stream, WORD(steps)), k)
        return build.gep(array, [build.mul(step, WORD(STATES * self.own.count))])


def _number(own: Vectors, pointer: Any, i: int) -> Any:
    return own.spread(own.builder.load(own.builder.gep(pointer, [WORD(i)])))


@contextmanager
def _over_states(own: Vectors, N: Any) -> Iterator[_Walk]:
    """Loops over vectors of channels and over groups of states."""
    groups = own.builder.udiv(N, WORD(STATES))
    with (
        cgutils.for_range(own.builder, WORD(BLOCK // own.count), intp=WORD) as outer,
        cgutils.for_range(own.builder, groups, intp=WORD) as inner,
    ):
        yield _Walk(own, N, outer.index, inner.index)


def forward_of(*, keep: bool, size: int = BYTES) -> Any:
    """A function that takes the states h through a chunk and adds C h to `sums`.

    With `keep` it writes decays and states; else their arrays are not looked at.
    """

    @intrinsic
    def scan(typingctx, A2, h, delta, inputs, sums, B, C, decays, states, count, N):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            A2, h, delta, inputs, sums, B, C, decays, states = (
                first_of(context, builder, kind, array, WORD(0))
                for kind, array in zip(signature.args[:9], arguments[:9], strict=True)
            )
            count, N = arguments[9:]
            own = Vectors(builder, A2.type.pointee, size)
            with _over_states(own, N) as walk:
                rates = [own.load(walk.state(A2, i), 0) for i in range(STATES)]
                now = _registers(own, [own.load(walk.state(h, i), 0) for i in range(STATES)])
                if keep:
                    for i, place in enumerate(now):
                        own.store(builder.load(place), walk.kept(states, CHUNK + 1, WORD(0)), i)
                with cgutils.for_range(builder, count, intp=WORD) as loop:
                    k = loop.index
                    step, given = (
                        own.load(walk.step(delta, k), 0),
                        own.load(walk.step(inputs, k), 0),
                    )
                    total = own.load(walk.step(sums, k), 0)
                    Bk, Ck = walk.coefficients(B, k), walk.coefficients(C, k)
                    for i, place in enumerate(now):
                        # Equation 2a, 2b: h = exp(delta A) h + delta B u, y = C h.
                        decay = own.exp2(builder.fmul(step, rates[i]))
                        value = _flushed(own, builder.fmul(decay, builder.load(place)))
                        value = own.fused(given, _number(own, Bk, i), value)
                        builder.store(value, place)
                        total = own.fused(value, _number(own, Ck, i), total)
                        if keep:
                            own.store(decay, walk.kept(decays, CHUNK, k), i)
                            after = builder.add(k, WORD(1))
                            own.store(value, walk.kept(states, CHUNK + 1, after), i)
                    own.store(total, walk.step(sums, k), 0)
                for i, place in enumerate(now):
                    own.store(builder.load(place), walk.state(h, i), 0)
            return context.get_dummy_value()

        index = types.intp
        given = (A2, h, delta, inputs, sums, B, C, decays, states)
        return types.void(*given, index, index), generate

    return scan


def backward_of(size: int = BYTES) -> Any:
    """A function that takes the states' adjoint g back through a chunk.

    It adds to dA, to each step's `dinputs` and `ddecays` (the sum over states of a's gradient times
    A2), and to dB and dC.
    """

    @intrinsic
    def scan(  # type: ignore[no-untyped-def]
        typingctx, A2, g, dA, delta, inputs, douts, dinputs, ddecays, B, C, dB, dC, decays, states,
        count, N,
    ):  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            A2, g, dA, delta, inputs, douts, dinputs, ddecays, B, C, dB, dC, decays, states = (
                first_of(context, builder, kind, array, WORD(0))
                for kind, array in zip(signature.args[:14], arguments[:14], strict=True)
            )
            count, N = arguments[14:]
            own = Vectors(builder, A2.type.pointee, size)
            with _over_states(own, N) as walk:
                rates = [own.load(walk.state(A2, i), 0) for i in range(STATES)]
                later, drates = (
                    _registers(own, [own.load(walk.state(array, i), 0) for i in range(STATES)])
                    for array in (g, dA)
                )
                with cgutils.for_range(builder, count, intp=WORD) as loop:
                    k = builder.sub(builder.sub(count, WORD(1)), loop.index)
                    step, given, dout, dinput, ddecay = (
                        own.load(walk.step(array, k), 0)
                        for array in (delta, inputs, douts, dinputs, ddecays)
                    )
                    Bk, Ck = walk.coefficients(B, k), walk.coefficients(C, k)
                    before = walk.kept(states, CHUNK + 1, k)
                    after = walk.kept(states, CHUNK + 1, builder.add(k, WORD(1)))
                    decay = walk.kept(decays, CHUNK, k)
                    to_B, to_C = [], []
                    for i in range(STATES):
                        # g_t = C_t dy_t + a_{t+1} g_{t+1}; a's own gradient is g a h_{t-1}.
                        value = own.fused(dout, _number(own, Ck, i), builder.load(later[i]))
                        to_C.append(builder.fmul(dout, own.load(after, i)))
                        to_B.append(builder.fmul(value, given))
                        dinput = own.fused(value, _number(own, Bk, i), dinput)
                        value = _flushed(own, builder.fmul(value, own.load(decay, i)))
                        builder.store(value, later[i])
                        value = builder.fmul(value, own.load(before, i))
                        ddecay = own.fused(value, rates[i], ddecay)
                        builder.store(own.fused(value, step, builder.load(drates[i])), drates[i])
                    own.store(dinput, walk.step(dinputs, k), 0)
                    own.store(ddecay, walk.step(ddecays, k), 0)
                    own.add_sums(to_B, walk.coefficients(dB, k))
                    own.add_sums(to_C, walk.coefficients(dC, k))
                for i in range(STATES):
                    own.store(builder.load(later[i]), walk.state(g, i), 0)
                    own.store(builder.load(drates[i]), walk.state(dA, i), 0)
            return context.get_dummy_value()

        index = types.intp
        given = (A2, g, dA, delta, inputs, douts, dinputs, ddecays, B, C, dB, dC, decays, states)
        return types.void(*given, index, index), generate

    return scan


scan_forward, scan_forward_keeping = forward_of(keep=False), forward_of(keep=True)
scan_backward = backward_of()
