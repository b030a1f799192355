"""The selective scan of Mamba-1 as a fused CPU kernel (optional).

The same function as `selective_scan_reference` of models/backbones/selective_scan.py, gate and skip
included, in fp32 or fp64. Like the CUDA kernel of the paper (arXiv:2312.00752, section 3.3.2) it
stores nothing of size B·T·E·N: states live in registers and cache, the forward keeps one state
every `CHUNK` steps, and the backward recomputes the states of a chunk from it. The work is cut by
batch item and by blocks of channels; what is done in it with every state is in `scan_tile`.

Shapes: B batch, T time, E channels, N state size, K = ceil(T / CHUNK), S channel blocks; M is N up
to the next multiple of STATES. The state is (B, N, E) here, channels last, so that the inner loops
run over contiguous memory.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from models.kernels.compiled import LOG2E, blocks_of, jit, run, sigmoid
from models.kernels.layout import gather, lay_out, round_up
from models.kernels.recurrence import channels_last, differentiate, recur
from models.kernels.scan_tile import STATES, own_decays

CHUNK = 32
BLOCK = 128  # channels of one work item: rows of 512 bytes
scan_forward, scan_backward = own_decays(CHUNK, BLOCK)
signed_forward, signed_backward = own_decays(CHUNK, BLOCK, negative=True)


@jit
def load_chunk(u, delta, D, deltas, us, sums, inputs):  # type: ignore[no-untyped-def]
    """Of a chunk and a block of channels: delta, u, what the skip adds, and delta u."""
    for k in range(u.shape[0]):
        at = k * BLOCK
        for e in range(u.shape[1]):
            us[at + e] = u[k, e]
            deltas[at + e] = delta[k, e]
            inputs[at + e] = delta[k, e] * u[k, e]
            sums[at + e] = D[e] * u[k, e]


@jit
def block_forward(  # type: ignore[no-untyped-def]
    u, delta, A2, B, C, D, z, h, bounds, y, negative, b, lo, hi
):
    """Channels lo..hi of item b. `h` (B, N, E) is the first state and becomes the last."""
    length, N = u.shape[1], A2.shape[0]
    M = round_up(N, STATES)
    space = np.zeros((2 * M + 4 * CHUNK) * BLOCK + 2 * CHUNK * M, u.dtype)
    rates, state, rest = space[: M * BLOCK], space[M * BLOCK :], space[2 * M * BLOCK :]
    size = CHUNK * BLOCK
    us, deltas, inputs, sums = rest[:size], rest[size:], rest[2 * size :], rest[3 * size :]
    Bs, Cs = rest[4 * size :], rest[4 * size + CHUNK * M :]
    lay_out(A2[:, lo:hi], rates, BLOCK)
    lay_out(h[b, :, lo:hi], state, BLOCK)
    for first in range(0, length, CHUNK):
        stop = min(first + CHUNK, length)
        if bounds.shape[1] > 0:
            gather(state, BLOCK, bounds[b, first // CHUNK, :, lo:hi])
        load_chunk(
            u[b, first:stop, lo:hi], delta[b, first:stop, lo:hi], D[lo:hi], deltas, us, sums, inputs
        )
        lay_out(B[b, first:stop], Bs, M)
        lay_out(C[b, first:stop], Cs, M)
        if negative:
            signed_forward(rates, state, deltas, inputs, sums, Bs, Cs, stop - first, M)
        else:
            scan_forward(rates, state, deltas, inputs, sums, Bs, Cs, stop - first, M)
        for t in range(first, stop):
            zt, yt, sum_ = z[b, t, lo:hi], y[b, t, lo:hi], sums[(t - first) * BLOCK :]
            for e in range(hi - lo):
                yt[e] = sum_[e] * zt[e] * sigmoid(zt[e])
    gather(state, BLOCK, h[b, :, lo:hi])


@jit(parallel=True)
def forward(  # type: ignore[no-untyped-def]
    u, delta, A2, B, C, D, z, h, bounds, y, blocks, negative
):
    """Every item and block of channels (S, 2)."""
    count = blocks.shape[0]
    for item in numba.prange(u.shape[0] * count):
        b, s = item // count, item % count
        block_forward(
            u, delta, A2, B, C, D, z, h, bounds, y, negative, b, blocks[s, 0], blocks[s, 1]
        )


@jit
def block_backward(  # type: ignore[no-untyped-def]
    u, delta, A2, B, C, D, z, bounds, dy, g, du, ddelta, dA, dB, dC, dD, dz, negative,
    b, s, lo, hi,
):  # fmt: skip
    """Adjoint of `block_forward`; `g` (B, N, E) is that of the last state, then of the first."""
    length, N = u.shape[1], A2.shape[0]
    one, zero, log2e = u.dtype.type(1), u.dtype.type(0), u.dtype.type(LOG2E)
    M, size = round_up(N, STATES), CHUNK * BLOCK
    area = M * BLOCK
    space = np.zeros(4 * area + 8 * size + BLOCK + 4 * CHUNK * M, u.dtype)
    rates, state, adjoint, drates = space, space[area:], space[2 * area :], space[3 * area :]
    rest = space[4 * area :]
    us, deltas, inputs, sums = rest[:size], rest[size:], rest[2 * size :], rest[3 * size :]
    gates, douts, rest = rest[4 * size :], rest[5 * size :], rest[6 * size :]
    dinputs, ddecays, skips = rest[:size], rest[size : 2 * size], rest[2 * size :]
    rest = rest[2 * size + BLOCK :]
    Bs, Cs, dBs, dCs = rest, rest[CHUNK * M :], rest[2 * CHUNK * M :], rest[3 * CHUNK * M :]
    lay_out(A2[:, lo:hi], rates, BLOCK)
    lay_out(g[b, :, lo:hi], adjoint, BLOCK)
    for chunk in range((length - 1) // CHUNK, -1, -1):
        first = chunk * CHUNK
        stop = min(first + CHUNK, length)
        lay_out(bounds[b, chunk, :, lo:hi], state, BLOCK)
        load_chunk(
            u[b, first:stop, lo:hi], delta[b, first:stop, lo:hi], D[lo:hi], deltas, us, sums, inputs
        )
        lay_out(B[b, first:stop], Bs, M)
        lay_out(C[b, first:stop], Cs, M)
        for t in range(first, stop):
            zt, dyt, at = z[b, t, lo:hi], dy[b, t, lo:hi], (t - first) * BLOCK
            own, gate, dout = us[at:], gates[at:], douts[at:]
            for e in range(hi - lo):
                gate[e] = sigmoid(zt[e])
                dout[e] = dyt[e] * zt[e] * gate[e]
                skips[e] += dout[e] * own[e]
        dinputs[:] = zero
        ddecays[:] = zero
        dBs[: 2 * CHUNK * M] = zero  # and dCs
        if negative:
            signed_backward(
                rates, state, adjoint, drates, deltas, inputs, sums, douts, dinputs, ddecays,
                Bs, Cs, dBs, dCs, stop - first, M,
            )  # fmt: skip
        else:
            scan_backward(
                rates, state, adjoint, drates, deltas, inputs, sums, douts, dinputs, ddecays,
                Bs, Cs, dBs, dCs, stop - first, M,
            )  # fmt: skip
        for t in range(first, stop):
            zt, dyt, at = z[b, t, lo:hi], dy[b, t, lo:hi], (t - first) * BLOCK
            dut, ddt, dzt = du[b, t, lo:hi], ddelta[b, t, lo:hi], dz[b, t, lo:hi]
            own, step, sum_, gate, dout = us[at:], deltas[at:], sums[at:], gates[at:], douts[at:]
            dinput, ddecay = dinputs[at:], ddecays[at:]
            for e in range(hi - lo):
                # A2 carries log2(e), so that it has to be taken out of what a's gradient met.
                ddt[e] = dinput[e] * own[e] + ddecay[e] / log2e
                dut[e] = dinput[e] * step[e] + dout[e] * D[lo + e]
                slope = gate[e] * (one + zt[e] * (one - gate[e]))  # of silu
                dzt[e] = dyt[e] * sum_[e] * slope
        gather(dBs, M, dB[s, b, first:stop])
        gather(dCs, M, dC[s, b, first:stop])
    gather(adjoint, BLOCK, g[b, :, lo:hi])
    gather(drates, BLOCK, dA[b, :, lo:hi])
    dD[b, lo:hi] = skips[: hi - lo]


@jit(parallel=True)
def backward(  # type: ignore[no-untyped-def]
    u, delta, A2, B, C, D, z, bounds, dy, g, du, ddelta, dA, dB, dC, dD, dz, blocks, negative
):
    """Every item and block of channels (S, 2)."""
    count = blocks.shape[0]
    for item in numba.prange(u.shape[0] * count):
        b, s = item // count, item % count
        block_backward(
            u, delta, A2, B, C, D, z, bounds, dy, g, du, ddelta, dA, dB, dC, dD, dz, negative,
            b, s, blocks[s, 0], blocks[s, 1],
        )  # fmt: skip


library = torch.library.Library("archbench", "FRAGMENT")
library.define(
    "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D, Tensor z,"
    " Tensor? state, bool negative, bool save) -> (Tensor, Tensor, Tensor)"
)
library.define(
    "selective_scan_backward(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D,"
    " Tensor z, Tensor bounds, Tensor dy, Tensor dlast, bool negative)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _bounds(u: Tensor, states: int, save: bool) -> Tensor:
    """Room for one state every `CHUNK` steps, (B, K, N, E); none where nothing is saved."""
    batch, length, channels = u.shape
    return u.new_empty(batch, -(-length // CHUNK) if save else 0, states, channels)


@torch.library.impl(library, "selective_scan", "CPU")
def _selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor,
    state: Tensor | None, negative: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    batch, _, channels = u.shape
    states = A.shape[1]
    inputs = tuple(x.contiguous() for x in (u, delta, A.T * LOG2E, B, C, D, z))
    h = u.new_zeros(batch, states, channels) if state is None else channels_last(state)
    y, bounds = torch.empty_like(inputs[0]), _bounds(u, states, save)
    run(forward, *inputs, h, bounds, y, blocks_of(channels, BLOCK), numbers=(negative,))
    return y, h.transpose(1, 2).contiguous(), bounds  # (B, T, E), (B, E, N), (B, K, N, E)


@torch.library.register_fake("archbench::selective_scan", lib=library)
def _selective_scan_fake(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor,
    state: Tensor | None, negative: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    states = A.shape[1]
    last = u.new_empty(u.shape[0], u.shape[2], states)
    return u.new_empty(u.shape), last, _bounds(u, states, save)


@torch.library.impl(library, "selective_scan_backward", "CPU")
def _selective_scan_backward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor,
    bounds: Tensor, dy: Tensor, dlast: Tensor, negative: bool,
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
    run(backward, *inputs, g, du, ddelta, dA, dB, dC, dD, dz, blocks, numbers=(negative,))
    dstate = g.transpose(1, 2).contiguous()  # (B, E, N)
    dA = dA.sum(0).T.contiguous()  # (E, N)
    return du, ddelta, dA, dB.sum(0), dC.sum(0), dD.sum(0), dz, dstate


@torch.library.register_fake("archbench::selective_scan_backward", lib=library)
def _selective_scan_backward_fake(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor,
    bounds: Tensor, dy: Tensor, dlast: Tensor, negative: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(x.new_empty(x.shape) for x in (u, delta, A, B, C, D, z, dlast))


differentiate(library, "selective_scan", options=1)


def selective_scan_fused(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    state: Tensor | None,
    negative: bool = False,
) -> tuple[Tensor, Tensor]:
    """As `selective_scan_reference`, on fp32 or fp64 CPU tensors."""
    operator = torch.ops.archbench.selective_scan.default
    return recur(operator, (u, delta, A, B, C, D, z), state, negative)


def warm() -> None:
    """Compile both kernels, or load them from numba's cache."""
    u = torch.ones(1, 2, 4, requires_grad=True)
    B = torch.ones(1, 2, 2)
    y, _ = selective_scan_fused(u, u, -torch.ones(4, 2), B, B, torch.ones(4), u, None)
    y.sum().backward()
