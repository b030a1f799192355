"""The inner loops of the Mambas' recurrences over a chunk of time, with states in registers.

SPAN vectors of channels take 4 states each through a chunk before the next 4 begin: they, their
adjoints and their rates stay in registers, and what a step adds to its sums is one load and one
store for all 4. The backward runs through the chunk and back again with them.

Of Mamba-1 every state decays by exp(delta A) of its own, or where decays may be negative by twice
that less one (arXiv:2411.12537); of Mamba-2 a step has one decay for all.

Shapes: N states, a multiple of STATES; Q steps; R channels. Arrays have one dimension: A2, h, g
and dA are (N, R), what a step has of every channel is (Q, R), and B and C are (Q, N).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from models.kernels.vectors import BYTES, REGISTERS, WORD, Vectors, first_of

STATES = 4
# Vectors of channels that go through a chunk together: what B and C have their gradients of is
# summed over these before it is over lanes.
SPAN = 2 if REGISTERS == 32 else 1


class _Walk:
    """Where SPAN vectors of channels and 4 of N states lie, as loops go over both."""

    def __init__(self, own: Vectors, channels: int, N: Any, vectors: Any, group: Any) -> None:
        build = own.builder
        self.own, self.channels, self.N = own, channels, N
        first = build.mul(vectors, WORD(SPAN * own.count))
        self.lanes = [build.add(first, WORD(v * own.count)) for v in range(SPAN)]
        self.first = build.mul(group, WORD(STATES))

    def _plus(self, array: Any, row: Any, length: Any, column: Any) -> Any:
        build = self.own.builder
        return build.gep(array, [build.add(build.mul(row, length), column)])

    def states(self, array: Any) -> list[Any]:
        """Of (N, R), the 4 of a vector before those of the next."""
        rows = [self.own.builder.add(self.first, WORD(i)) for i in range(STATES)]
        width = WORD(self.channels)
        return [self._plus(array, row, width, lane) for lane in self.lanes for row in rows]

    def step(self, array: Any, k: Any) -> list[Any]:
        """Of (Q, R), one for each vector."""
        return [self._plus(array, k, WORD(self.channels), lane) for lane in self.lanes]

    def coefficients(self, array: Any, k: Any) -> Any:
        """Where the 4 numbers are of (Q, N)."""
        return self._plus(array, k, self.N, self.first)

    def number(self, array: Any, k: Any) -> Any:
        """Of (Q), in all lanes."""
        return self.own.spread(self.own.builder.load(self.own.builder.gep(array, [k])))

    def numbers(self, array: Any, k: Any) -> list[Any]:
        """The 4 of (Q, N), each in all lanes."""
        return [self.number(self.coefficients(array, k), WORD(i)) for i in range(STATES)]

    def loaded(self, places: Sequence[Any]) -> list[Any]:
        return [self.own.load(place, 0) for place in places]

    def kept(self, values: Sequence[Any], places: Sequence[Any]) -> None:
        for value, place in zip(values, places, strict=True):
            self.own.store(value, place, 0)

    def delta_or_decay(self, array: Any, k: Any, rates: Sequence[Any]) -> list[Any]:
        """A step's sizes (Q, R) where there are rates, its decay (Q) where there are none."""
        if rates:
            return self.loaded(self.step(array, k))
        return [self.number(array, k)] * SPAN

    def registers(self, pointers: Sequence[Any]) -> list[Any]:
        """Vectors in places that LLVM turns into registers, as nothing takes their address."""
        build = self.own.builder
        places = [cgutils.alloca_once(build, self.own.kind) for _ in pointers]
        for place, pointer in zip(places, pointers, strict=True):
            build.store(self.own.load(pointer, 0), place)
        return places

    def write_back(self, places: Sequence[Any], pointers: Sequence[Any]) -> None:
        self.kept([self.own.builder.load(place) for place in places], pointers)


@contextmanager
def _walks(own: Vectors, channels: int, N: Any) -> Iterator[_Walk]:
    """Loops over vectors of channels and over groups of states."""
    groups = own.builder.udiv(N, WORD(STATES))
    spans = WORD(channels // (SPAN * own.count))
    with (
        cgutils.for_range(own.builder, spans, intp=WORD) as outer,
        cgutils.for_range(own.builder, groups, intp=WORD) as inner,
    ):
        yield _Walk(own, channels, N, outer.index, inner.index)


class _Stream:
    """SPAN times 4 vectors for each step of a chunk, on the stack: that is in the nearest cache."""

    def __init__(self, own: Vectors, steps: int) -> None:
        self.own = own
        self.start = cgutils.alloca_once(own.builder, own.kind, size=WORD(steps * SPAN * STATES))

    def at(self, k: Any) -> Any:
        build = self.own.builder
        place = build.gep(self.start, [build.mul(k, WORD(SPAN * STATES))])
        return build.bitcast(place, self.own.element.as_pointer())


def _advance(
    walk: _Walk, count: Any, now: Sequence[Any], rates: Sequence[Any], delta_or_decay: Any,
    inputs: Any, sums: Any | None, B: Any, C: Any, decays: _Stream | None = None,
    states: _Stream | None = None, negative: bool = False,
) -> None:  # fmt: skip
    """h = a h + input B and sum += h C, equations 2a and 2b of arXiv:2312.00752.

    With rates A2 it is a = 2^(delta A2), twice that less one where it may be `negative`, and
    `delta_or_decay` (Q, R) has the step sizes; without, it is (Q) and has a itself, which Mamba-2
    shares among the states (arXiv:2405.21060).
    """
    own, build = walk.own, walk.own.builder
    if states is not None:
        for n, place in enumerate(now):
            own.store(build.load(place), states.at(WORD(0)), n)
    with cgutils.for_range(build, count, intp=WORD) as loop:
        k = loop.index
        steps = walk.delta_or_decay(delta_or_decay, k, rates)
        given, Bs = walk.loaded(walk.step(inputs, k)), walk.numbers(B, k)
        if sums is not None:
            totals, Cs = walk.loaded(walk.step(sums, k)), walk.numbers(C, k)
        for n, place in enumerate(now):
            v, i = divmod(n, STATES)
            decay = own.exp2(build.fmul(steps[v], rates[n])) if rates else steps[v]
            if negative:
                decay = own.fused(own.constant(2.0), decay, own.constant(-1.0))
            value = build.fmul(decay, build.load(place))
            value = own.fused(given[v], Bs[i], own.flushed(value) if rates else value)
            build.store(value, place)
            if sums is not None:
                totals[v] = own.fused(value, Cs[i], totals[v])
            if decays is not None:
                own.store(decay, decays.at(k), n)
            if states is not None:
                own.store(value, states.at(build.add(k, WORD(1))), n)
        if sums is not None:
            walk.kept(totals, walk.step(sums, k))


def _retreat(
    walk: _Walk, count: Any, later: Sequence[Any], rates: Sequence[Any], drates: Sequence[Any],
    delta_or_decay: Any, inputs: Any, douts: Any, dinputs: Any, ddecays: Any,
    B: Any, C: Any, dB: Any, dC: Any, decays: _Stream | None, states: _Stream,
    negative: bool = False,
) -> None:  # fmt: skip
    """The adjoint of `_advance`: g_t = C_t dout_t + a_{t+1} g_{t+1}; what it gives is added."""
    own, build = walk.own, walk.own.builder
    with cgutils.for_range(build, count, intp=WORD) as loop:
        k = build.sub(build.sub(count, WORD(1)), loop.index)
        steps = walk.delta_or_decay(delta_or_decay, k, rates)
        given, dout, dinput, ddecay = (
            walk.loaded(walk.step(array, k)) for array in (inputs, douts, dinputs, ddecays)
        )
        Bs, Cs = walk.numbers(B, k), walk.numbers(C, k)
        before, after = states.at(k), states.at(build.add(k, WORD(1)))
        to_B: list[Any] = [None] * STATES
        to_C: list[Any] = [None] * STATES
        for n, place in enumerate(later):
            v, i = divmod(n, STATES)
            value = own.fused(dout[v], Cs[i], build.load(place))
            to_C[i] = own.added(dout[v], own.load(after, n), to_C[i])
            to_B[i] = own.added(value, given[v], to_B[i])
            dinput[v] = own.fused(value, Bs[i], dinput[v])
            if rates and decays is not None:
                # With a = exp2(delta A2) both of these have a times a's gradient as a factor, and
                # a + 1 in its place with a = 2 exp2(delta A2) - 1.
                through = own.flushed(build.fmul(value, own.load(decays.at(k), n)))
                build.store(through, place)
                value = build.fadd(through, value) if negative else through
                value = build.fmul(value, own.load(before, n))
                ddecay[v] = own.fused(value, rates[n], ddecay[v])
                build.store(own.fused(value, steps[v], build.load(drates[n])), drates[n])
            else:
                ddecay[v] = own.fused(value, own.load(before, n), ddecay[v])
                build.store(build.fmul(value, steps[v]), place)
        walk.kept(dinput, walk.step(dinputs, k))
        walk.kept(ddecay, walk.step(ddecays, k))
        own.add_sums(to_B, walk.coefficients(dB, k))
        own.add_sums(to_C, walk.coefficients(dC, k))


def _call(emit: Any, arrays: int, channels: int, size: int) -> Any:
    """What generates the code of an intrinsic: `emit(walk, count, *pointers)` in its loops."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointers = [
            first_of(context, builder, kind, array, WORD(0))
            for kind, array in zip(signature.args[:arrays], arguments[:arrays], strict=True)
        ]
        own = Vectors(builder, pointers[0].type.pointee, size)
        count, N = arguments[arrays:]
        with _walks(own, channels, N) as walk:
            emit(walk, count, *pointers)
        return context.get_dummy_value()

    return generate


def own_decays(
    chunk: int, channels: int, size: int = BYTES, *, negative: bool = False
) -> tuple[Any, Any]:
    """Mamba-1's chunk of up to `chunk` steps of `channels` channels, forward and backward.

    Decays are exp(delta A), or where they may be `negative` 2 exp(delta A) - 1.

    Inputs are finite or NaN: an infinite one makes NaN of the states that N is padded with.

    The forward changes h (N, R) to the states after the chunk and adds h C to `sums`. The backward
    does the latter too, from the h before the chunk; it changes g to the adjoint before the chunk
    and adds to dA, `dinputs`, `ddecays` (summed over states, times A2), dB and dC.
    """

    def advance(
        walk: _Walk, count: Any, A2: Any, h: Any, delta: Any, inputs: Any, sums: Any, B: Any, C: Any
    ) -> None:
        now, rates = walk.registers(walk.states(h)), walk.loaded(walk.states(A2))
        _advance(walk, count, now, rates, delta, inputs, sums, B, C, negative=negative)
        walk.write_back(now, walk.states(h))

    def retreat(
        walk: _Walk, count: Any, A2: Any, h: Any, g: Any, dA: Any, delta: Any, inputs: Any,
        sums: Any, douts: Any, dinputs: Any, ddecays: Any, B: Any, C: Any, dB: Any, dC: Any,
    ) -> None:  # fmt: skip
        kept = _Stream(walk.own, chunk), _Stream(walk.own, chunk + 1)
        rates, now = walk.loaded(walk.states(A2)), walk.registers(walk.states(h))
        _advance(walk, count, now, rates, delta, inputs, sums, B, C, *kept, negative)
        later, drates = walk.registers(walk.states(g)), walk.registers(walk.states(dA))
        _retreat(
            walk, count, later, rates, drates, delta, inputs, douts, dinputs, ddecays,
            B, C, dB, dC, *kept, negative,
        )  # fmt: skip
        walk.write_back(later, walk.states(g))
        walk.write_back(drates, walk.states(dA))

    @intrinsic
    def forward(typingctx, A2, h, delta, inputs, sums, B, C, count, N):  # type: ignore[no-untyped-def]
        kind = types.void(A2, h, delta, inputs, sums, B, C, types.intp, types.intp)
        return kind, _call(advance, 7, channels, size)

    @intrinsic
    def backward(  # type: ignore[no-untyped-def]
        typingctx, A2, h, g, dA, delta, inputs, sums, douts, dinputs, ddecays, B, C, dB, dC,
        count, N,
    ):  # fmt: skip
        given = (A2, h, g, dA, delta, inputs, sums, douts, dinputs, ddecays, B, C, dB, dC)
        return types.void(*given, types.intp, types.intp), _call(retreat, 14, channels, size)

    return forward, backward


def one_decay(chunk: int, channels: int, size: int = BYTES) -> tuple[Any, Any]:
    """Mamba-2's, whose steps have one decay each, `decay` (Q).

    As Mamba-1's, but `ddecays` are sums over states of g_t h_{t-1}, which is what a decay meets,
    and the backward has no `sums`.
    """

    def advance(walk: _Walk, count: Any, h: Any, *given: Any) -> None:
        now = walk.registers(walk.states(h))
        _advance(walk, count, now, (), *given)
        walk.write_back(now, walk.states(h))

    def retreat(
        walk: _Walk, count: Any, h: Any, g: Any, decay: Any, inputs: Any, douts: Any,
        dinputs: Any, ddecays: Any, B: Any, C: Any, dB: Any, dC: Any,
    ) -> None:  # fmt: skip
        states = _Stream(walk.own, chunk + 1)
        now = walk.registers(walk.states(h))
        _advance(walk, count, now, (), decay, inputs, None, B, C, None, states)
        later = walk.registers(walk.states(g))
        _retreat(
            walk, count, later, (), (), decay, inputs, douts, dinputs, ddecays, B, C, dB, dC,
            None, states,
        )  # fmt: skip
        walk.write_back(later, walk.states(g))

    @intrinsic
    def forward(typingctx, h, decay, inputs, sums, B, C, count, N):  # type: ignore[no-untyped-def]
        kind = types.void(h, decay, inputs, sums, B, C, types.intp, types.intp)
        return kind, _call(advance, 6, channels, size)

    @intrinsic
    def backward(  # type: ignore[no-untyped-def]
        typingctx, h, g, decay, inputs, douts, dinputs, ddecays, B, C, dB, dC, count, N
    ):
        given = (h, g, decay, inputs, douts, dinputs, ddecays, B, C, dB, dC)
        return types.void(*given, types.intp, types.intp), _call(retreat, 11, channels, size)

    return forward, backward
