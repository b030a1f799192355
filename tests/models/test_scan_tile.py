"""The Mambas' chunks in vectors of every size, against the recurrence and its adjoint in numpy."""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pytest

from models.kernels.scan_tile import STATES, one_decay, own_decays

# SSE and NEON, AVX, AVX-512: LLVM splits what a processor does not have.
sizes = pytest.mark.parametrize("size", [16, 32, 64])
kinds = pytest.mark.parametrize("kind", [np.float32, np.float64])
CHUNK, CHANNELS, N = 6, 32, 2 * STATES
STEPS = [1, 5, CHUNK]


@dataclass(frozen=True)
class Chunk:
    """What a chunk is given, in fp64: `decay` (Q, N, R), `inputs` and `douts` (Q, R)."""

    decay: Any
    inputs: Any
    douts: Any
    B: Any
    C: Any
    h: Any
    g: Any

    def forward(self) -> tuple[Any, Any]:
        """States from before the chunk to after it, and h C."""
        states = [self.h]
        for a, x, b in zip(self.decay, self.inputs, self.B, strict=True):
            states.append(a * states[-1] + b[:, None] * x)
        sums = [c @ h for c, h in zip(self.C, states[1:], strict=True)]
        return np.array(states), np.array(sums)

    def backward(self) -> dict[str, Any]:
        """By hand, from the last step to the first."""
        states, _ = self.forward()
        g, found = self.g, {"dinputs": [], "da": [], "dB": [], "dC": []}
        for t in range(len(self.inputs) - 1, -1, -1):
            g = g + self.C[t][:, None] * self.douts[t]
            found["dC"].append(states[t + 1] @ self.douts[t])
            found["dB"].append(g @ self.inputs[t])
            found["dinputs"].append(self.B[t] @ g)
            found["da"].append(g * states[t])
            g = g * self.decay[t]
        return {name: np.array(values[::-1]) for name, values in found.items()} | {"g": g}


def drawn(steps: int, decay: Any) -> Chunk:
    r = np.random.default_rng(steps)
    normal = r.standard_normal
    rows, coefficients, states = (steps, CHANNELS), (steps, N), (N, CHANNELS)
    return Chunk(
        decay, normal(rows), normal(rows), normal(coefficients), normal(coefficients),
        normal(states), normal(states),
    )  # fmt: skip


def close(found: Any, expected: Any, kind: Any) -> None:
    error = 1e-5 if kind == np.float32 else 1e-12
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=error, atol=error)


def flat(kind: Any, *arrays: Any) -> list[Any]:
    return [np.ascontiguousarray(a).astype(kind).ravel() for a in arrays]


@sizes
@kinds
@pytest.mark.parametrize("steps", STEPS)
def test_states_with_decays_of_their_own(size: int, kind: Any, steps: int) -> None:
    forward, backward = own_decays(CHUNK, CHANNELS, size)

    @numba.njit
    def ahead(A2, h, delta, inputs, sums, B, C, steps):  # type: ignore[no-untyped-def]
        forward(A2, h, delta, inputs, sums, B, C, steps, N)

    @numba.njit
    def back(A2, h, g, dA, delta, inputs, sums, douts, dinputs, da, B, C, dB, dC, steps):  # type: ignore[no-untyped-def]
        backward(A2, h, g, dA, delta, inputs, sums, douts, dinputs, da, B, C, dB, dC, steps, N)

    r = np.random.default_rng(0)
    A2, delta = -r.random((N, CHANNELS)), r.random((steps, CHANNELS))
    given = drawn(steps, np.exp2(delta[:, None] * A2))
    states, sums = given.forward()
    expected = given.backward()
    A2_, h, delta_, inputs, B, C = flat(kind, A2, given.h, delta, given.inputs, given.B, given.C)
    found = np.ones(steps * CHANNELS, kind)  # is added to
    ahead(A2_, h, delta_, inputs, found, B, C, steps)
    close(h, states[-1], kind)
    close(found, 1 + sums, kind)

    h, g, douts = flat(kind, given.h, given.g, given.douts)
    dA, total, dinputs, da, dB, dC = (
        np.ones(count, kind) for count in (A2.size, *[delta.size] * 3, B.size, C.size)
    )
    back(A2_, h, g, dA, delta_, inputs, total, douts, dinputs, da, B, C, dB, dC, steps)
    a = expected["da"] * given.decay  # times a's gradient, which log(2) is taken out of
    close(g, expected["g"], kind)
    close(dA, 1 + (a * delta[:, None]).sum(0), kind)
    close(total, 1 + sums, kind)
    close(dinputs, 1 + expected["dinputs"], kind)
    close(da, 1 + (a * A2).sum(1), kind)
    close(dB, 1 + expected["dB"], kind)
    close(dC, 1 + expected["dC"], kind)


@sizes
@kinds
@pytest.mark.parametrize("steps", STEPS)
def test_states_with_one_decay(size: int, kind: Any, steps: int) -> None:
    forward, backward = one_decay(CHUNK, CHANNELS, size)

    @numba.njit
    def ahead(h, decay, inputs, sums, B, C, steps):  # type: ignore[no-untyped-def]
        forward(h, decay, inputs, sums, B, C, steps, N)

    @numba.njit
    def back(h, g, decay, inputs, douts, dinputs, da, B, C, dB, dC, steps):  # type: ignore[no-untyped-def]
        backward(h, g, decay, inputs, douts, dinputs, da, B, C, dB, dC, steps, N)

    decay = np.random.default_rng(0).random(steps)
    given = drawn(steps, np.broadcast_to(decay[:, None, None], (steps, N, CHANNELS)))
    states, sums = given.forward()
    expected = given.backward()
    h, decay_, inputs, B, C = flat(kind, given.h, decay, given.inputs, given.B, given.C)
    found = np.ones(steps * CHANNELS, kind)
    ahead(h, decay_, inputs, found, B, C, steps)
    close(h, states[-1], kind)
    close(found, 1 + sums, kind)

    h, g, douts = flat(kind, given.h, given.g, given.douts)
    dinputs, da, dB, dC = (np.ones(n, kind) for n in (*[inputs.size] * 2, B.size, C.size))
    back(h, g, decay_, inputs, douts, dinputs, da, B, C, dB, dC, steps)
    close(g, expected["g"], kind)
    close(dinputs, 1 + expected["dinputs"], kind)
    close(da, 1 + expected["da"].sum(1), kind)
    close(dB, 1 + expected["dB"], kind)
    close(dC, 1 + expected["dC"], kind)
