"""The selective scan of Mamba-1 as a fused CPU kernel, compiled by numba (optional).

The same function as `selective_scan_reference` of models/backbones/selective_scan.py, gate and skip
included, in fp32 or fp64. Like the CUDA kernel of the paper (arXiv:2312.00752, section 3.3.2) it
stores nothing of size B·T·E·N: states live in cache, the forward keeps one state every `CHUNK`
steps, and the backward recomputes the states of a chunk from it. The work is cut by batch item and
by blocks of channels.

What the inner loops read and write lies in one workspace whose rows have a length known to the
compiler: it then sees that they do not overlap, and vectorises. Exponentials have loops of their
own, since their constants fill the registers.

Shapes: B batch, T time, E channels, N state size, K = ceil(T / CHUNK), S channel blocks.
The state is (B, N, E) here, channels last, so that the inner loops run over contiguous memory.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from models.kernels.available import MAX_STATES
from models.kernels.compiled import LOG2E, blocks_of, exp2, flushed, jit, run, sigmoid
from models.kernels.recurrence import channels_last, differentiate, recur

CHUNK = 16
BLOCK = 64  # channels of one work item: a chunk's states stay within the second-level cache
# Rows of the workspace: A log2(e), the state or its adjoint, dA, vectors; then the decays of a
# step, in the backward those of each step of a chunk, the states before each and after the last.
STATE, DA = MAX_STATES, 2 * MAX_STATES
DELTA, U, INPUT, SKIP, SUM, DOUT, DINPUT, DDECAY, DD = range(3 * MAX_STATES, 3 * MAX_STATES + 9)
SUMS = DD + 1
DECAYS = SUMS + CHUNK


@jit
def block_forward(  # type: ignore[no-untyped-def]
    u, delta, A2, B, C, D, z, h, bounds, y, b, lo, hi
):
    """Channels lo..hi of item b. `h` (B, N, E) is the first state and becomes the last."""
    steps, N, width = u.shape[1], A2.shape[0], hi - lo
    save = bounds.shape[1] > 0
    space = np.zeros((DECAYS + N, BLOCK), u.dtype)
    space[:N, :width] = A2[:, lo:hi]
    space[STATE : STATE + N, :width] = h[b, :, lo:hi]
    space[SKIP, :width] = D[lo:hi]
    for t in range(steps):
        if save and t % CHUNK == 0:
            bounds[b, t // CHUNK, :, lo:hi] = space[STATE : STATE + N, :width]
        space[U, :width], space[DELTA, :width] = u[b, t, lo:hi], delta[b, t, lo:hi]
        for e in range(BLOCK):
            space[INPUT, e] = space[DELTA, e] * space[U, e]
            space[SUM, e] = space[SKIP, e] * space[U, e]
        for n in range(N):
            for e in range(BLOCK):
                space[DECAYS + n, e] = exp2(space[DELTA, e] * space[n, e])
        for n in range(N):
            Bn, Cn = B[b, t, n], C[b, t, n]
            for e in range(BLOCK):
                # Equation 2a, 2b: h = exp(delta A) h + delta B u, y = C h.
                value = flushed(space[DECAYS + n, e] * space[STATE + n, e]) + space[INPUT, e] * Bn
                space[STATE + n, e] = value
                space[SUM, e] += value * Cn
        zt, yt = z[b, t, lo:hi], y[b, t, lo:hi]
        for e in range(width):
            yt[e] = space[SUM, e] * zt[e] * sigmoid(zt[e])
    h[b, :, lo:hi] = space[STATE : STATE + N, :width]


@jit(parallel=True)
def forward(u, delta, A2, B, C, D, z, h, bounds, y, blocks):  # type: ignore[no-untyped-def]
    """Every item and block of channels (S, 2)."""
    count = blocks.shape[0]
    for item in numba.prange(u.shape[0] * count):
        b, s = item // count, item % count
        block_forward(u, delta, A2, B, C, D, z, h, bounds, y, b, blocks[s, 0], blocks[s, 1])


@jit
def block_backward(  # type: ignore[no-untyped-def]
    u, delta, A2, B, C, D, z, bounds, dy, g, du, ddelta, dA, dB, dC, dD, dz, b, s, lo, hi
):
    """Adjoint of `block_forward`; `g` (B, N, E) is that of the last state, then of the first."""
    steps, N, width = u.shape[1], A2.shape[0], hi - lo
    one, zero, log2e = u.dtype.type(1), u.dtype.type(0), u.dtype.type(LOG2E)
    states = DECAYS + CHUNK * N
    space = np.zeros((states + (CHUNK + 1) * N, BLOCK), u.dtype)
    space[:N, :width] = A2[:, lo:hi]
    space[STATE : STATE + N, :width] = g[b, :, lo:hi]
    space[SKIP, :width] = D[lo:hi]
    for chunk in range((steps - 1) // CHUNK, -1, -1):
        first = chunk * CHUNK
        count = min(CHUNK, steps - first)
        space[states : states + N, :width] = bounds[b, chunk, :, lo:hi]
        for k in range(count):
            t, before, decays = first + k, states + k * N, DECAYS + k * N
            space[U, :width], space[DELTA, :width] = u[b, t, lo:hi], delta[b, t, lo:hi]
            for e in range(BLOCK):
                space[INPUT, e] = space[DELTA, e] * space[U, e]
                space[SUM, e] = space[SKIP, e] * space[U, e]
            for n in range(N):
                for e in range(BLOCK):
                    space[decays + n, e] = exp2(space[DELTA, e] * space[n, e])
            for n in range(N):
                Bn, Cn = B[b, t, n], C[b, t, n]
                for e in range(BLOCK):
                    value = flushed(space[decays + n, e] * space[before + n, e])
                    value += space[INPUT, e] * Bn
                    space[before + N + n, e] = value
                    space[SUM, e] += value * Cn
            space[SUMS + k] = space[SUM]
        for k in range(count - 1, -1, -1):
            t, before, decays = first + k, states + k * N, DECAYS + k * N
            zt, dyt, dzt = z[b, t, lo:hi], dy[b, t, lo:hi], dz[b, t, lo:hi]
            for e in range(width):
                gate = sigmoid(zt[e])
                slope = gate * (one + zt[e] * (one - gate))  # of silu
                dzt[e] = dyt[e] * space[SUMS + k, e] * slope
                space[DOUT, e] = dyt[e] * zt[e] * gate
            space[U, :width], space[DELTA, :width] = u[b, t, lo:hi], delta[b, t, lo:hi]
            for e in range(BLOCK):
                space[INPUT, e] = space[DELTA, e] * space[U, e]
                space[DD, e] += space[DOUT, e] * space[U, e]
                space[DINPUT, e], space[DDECAY, e] = zero, zero
            for n in range(N):
                Bn, Cn, dBn, dCn = B[b, t, n], C[b, t, n], zero, zero
                for e in range(BLOCK):
                    # g_t = C_t dy_t + a_{t+1} g_{t+1}; a's own gradient is g a h_{t-1}.
                    dout = space[DOUT, e]
                    value = space[STATE + n, e] + dout * Cn
                    dCn += dout * space[before + N + n, e]
                    dBn += value * space[INPUT, e]
                    space[DINPUT, e] += value * Bn
                    value = flushed(value * space[decays + n, e])
                    space[STATE + n, e] = value
                    value *= space[before + n, e]
                    space[DDECAY, e] += value * space[n, e]
                    space[DA + n, e] += value * space[DELTA, e]
                dB[s, b, t, n] = dBn
                dC[s, b, t, n] = dCn
            dut, ddt = du[b, t, lo:hi], ddelta[b, t, lo:hi]
            for e in range(width):
                # A2 carries log2(e), so DDECAY has to be scaled back.
                ddt[e] = space[DINPUT, e] * space[U, e] + space[DDECAY, e] / log2e
                dut[e] = space[DINPUT, e] * space[DELTA, e] + space[DOUT, e] * space[SKIP, e]
    g[b, :, lo:hi] = space[STATE : STATE + N, :width]
    dA[b, :, lo:hi] = space[DA : DA + N, :width]
    dD[b, lo:hi] = space[DD, :width]


@jit(parallel=True)
def backward(  # type: ignore[no-untyped-def]
    u, delta, A2, B, C, D, z, bounds, dy, g, du, ddelta, dA, dB, dC, dD, dz, blocks
):
    """Every item and block of channels (S, 2)."""
    count = blocks.shape[0]
    for item in numba.prange(u.shape[0] * count):
        b, s = item // count, item % count
        block_backward(
            u, delta, A2, B, C, D, z, bounds, dy, g, du, ddelta, dA, dB, dC, dD, dz,
            b, s, blocks[s, 0], blocks[s, 1],
        )  # fmt: skip


library = torch.library.Library("archbench", "FRAGMENT")
library.define(
    "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D, Tensor z,"
    " Tensor? state, bool save) -> (Tensor, Tensor, Tensor)"
)
library.define(
    "selective_scan_backward(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D,"
    " Tensor z, Tensor bounds, Tensor dy, Tensor dlast)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _bounds(u: Tensor, states: int, save: bool) -> Tensor:
    """Room for one state every `CHUNK` steps, (B, K, N, E); none where nothing is saved."""
    batch, length, channels = u.shape
    return u.new_empty(batch, -(-length // CHUNK) if save else 0, states, channels)


@torch.library.impl(library, "selective_scan", "CPU")
def _selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor,
    state: Tensor | None, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    batch, _, channels = u.shape
    states = A.shape[1]
    inputs = tuple(x.contiguous() for x in (u, delta, A.T * LOG2E, B, C, D, z))
    h = u.new_zeros(batch, states, channels) if state is None else channels_last(state)
    y, bounds = torch.empty_like(inputs[0]), _bounds(u, states, save)
    run(forward, *inputs, h, bounds, y, blocks_of(channels, BLOCK))
    return y, h.transpose(1, 2).contiguous(), bounds  # (B, T, E), (B, E, N), (B, K, N, E)


@torch.library.register_fake("archbench::selective_scan", lib=library)
def _selective_scan_fake(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor,
    state: Tensor | None, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    states = A.shape[1]
    last = u.new_empty(u.shape[0], u.shape[2], states)
    return u.new_empty(u.shape), last, _bounds(u, states, save)


@torch.library.impl(library, "selective_scan_backward", "CPU")
def _selective_scan_backward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor,
    bounds: Tensor, dy: Tensor, dlast: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    batch, length, channels = u.shape
    states = A.shape[1]
    blocks = blocks_of(channels, BLOCK)
    inputs = [x.contiguous() for x in (u, delta, A.T * LOG2E, B, C, D, z, bounds, dy)]
    g = channels_last(dlast)
    du, ddelta, dz = (torch.empty_like(inputs[0]) for _ in range(3))
    dA = u.new_empty(batch, states, channels)
    dD = u.new_empty(batch, channels)
    dB, dC = (u.new_empty(len(blocks), batch, length, states) for _ in range(2))  # (S, B, T, N)
    run(backward, *inputs, g, du, ddelta, dA, dB, dC, dD, dz, blocks)
    dstate = g.transpose(1, 2).contiguous()  # (B, E, N)
    dA = dA.sum(0).T.contiguous()  # (E, N)
    return du, ddelta, dA, dB.sum(0), dC.sum(0), dD.sum(0), dz, dstate


@torch.library.register_fake("archbench::selective_scan_backward", lib=library)
def _selective_scan_backward_fake(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor,
    bounds: Tensor, dy: Tensor, dlast: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(x.new_empty(x.shape) for x in (u, delta, A, B, C, D, z, dlast))


differentiate(library, "selective_scan")


def selective_scan_fused(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """As `selective_scan_reference`, on fp32 or fp64 CPU tensors."""
    return recur(torch.ops.archbench.selective_scan.default, (u, delta, A, B, C, D, z), state)


def warm() -> None:
    """Compile both kernels, or load them from numba's cache."""
    u = torch.ones(1, 2, 4, requires_grad=True)
    B = torch.ones(1, 2, 2)
    y, _ = selective_scan_fused(u, u, -torch.ones(4, 2), B, B, torch.ones(4), u, None)
    y.sum().backward()
