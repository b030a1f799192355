"""The recurrence of Mamba-2 as a fused CPU kernel (optional).

The same function as `ssd_reference` of models/backbones/ssd.py, in fp32 or fp64. The matrix form
of the paper (arXiv:2405.21060) is made for matrix units; a CPU has none, and there the plain
recurrence with the state in registers and cache moves far less memory. The forward keeps one state
every `CHUNK` steps; the backward recomputes the states of a chunk from it. The work is cut by batch
item, head and, since every channel of a head has a state of its own, by blocks of `WIDTH` channels;
what is done in it with every state is in `scan_tile`.

Shapes: B batch, T time, H heads, P headdim, G groups, N d_state, K = ceil(T / CHUNK), Q work items
of a batch item; M is N up to the next multiple of STATES. The state is (B, H, N, P) here, channels
last.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from models.kernels.compiled import blocks_of, flushed, jit, run
from models.kernels.layout import gather, lay_out, round_up
from models.kernels.recurrence import channels_last, differentiate, recur
from models.kernels.scan_tile import STATES, one_decay

CHUNK = 64
WIDTH = 64  # channels of one work item
scan_forward, scan_backward = one_decay(CHUNK, WIDTH)


@jit
def load_chunk(x, steps, delta, A, decay, inputs, negative):  # type: ignore[no-untyped-def]
    """Of a chunk and a block of a head's channels: the decay and step x.

    A decay is exp(delta A), or where it may be `negative` 2 exp(delta A) - 1 (arXiv:2411.12537).
    """
    one = x.dtype.type(1)
    for k in range(x.shape[0]):
        decay[k] = np.exp(delta[k] * A)
        if negative:
            decay[k] = decay[k] + (decay[k] - one)
        for p in range(x.shape[1]):
            inputs[k * WIDTH + p] = steps[k] * x[k, p]


@jit
def flush(state):  # type: ignore[no-untyped-def]
    """Once a chunk: denormals last for the rest of one at most, then the state is zero.

    Forward and backward take 1.2 times as long where inputs are zero from step 20 of 512 on; a
    flush at each step would be a comparison for every state.
    """
    for i in range(state.shape[0]):
        state[i] = flushed(state[i])


@jit
def item_forward(  # type: ignore[no-untyped-def]
    x, steps, delta, A, B, C, D, h, bounds, y, negative, b, head, lo, hi
):
    """Channels lo..hi of a head of item b. `h` is the first state and becomes the last."""
    length, N = x.shape[1], B.shape[3]
    group = head // (x.shape[2] // B.shape[2])
    M, size = round_up(N, STATES), CHUNK * WIDTH
    space = np.zeros(M * WIDTH + 2 * size + 2 * CHUNK * M, x.dtype)
    decay = np.empty(CHUNK, x.dtype)
    state, inputs, rest = space[: M * WIDTH], space[M * WIDTH :], space[M * WIDTH + size :]
    sums, Bs, Cs = rest[:size], rest[size:], rest[size + CHUNK * M :]
    lay_out(h[b, head, :, lo:hi], state, WIDTH)
    for first in range(0, length, CHUNK):
        stop = min(first + CHUNK, length)
        flush(state)
        if bounds.shape[2] > 0:
            gather(state, WIDTH, bounds[b, head, first // CHUNK, :, lo:hi])
        own = x[b, first:stop, head, lo:hi]
        load_chunk(
            own, steps[b, first:stop, head], delta[b, first:stop, head], A[head], decay, inputs,
            negative,
        )  # fmt: skip
        lay_out(own * D[head], sums, WIDTH)
        lay_out(B[b, first:stop, group], Bs, M)
        lay_out(C[b, first:stop, group], Cs, M)
        scan_forward(state, decay, inputs, sums, Bs, Cs, stop - first, M)
        gather(sums, WIDTH, y[b, first:stop, head, lo:hi])
    gather(state, WIDTH, h[b, head, :, lo:hi])


@jit(parallel=True)
def forward(  # type: ignore[no-untyped-def]
    x, steps, delta, A, B, C, D, h, bounds, y, blocks, negative
):
    """Every item, head and block of channels (S, 2)."""
    count = blocks.shape[0]
    items = x.shape[2] * count
    for item in numba.prange(x.shape[0] * items):
        b, q = item // items, item % items
        lo, hi = blocks[q % count, 0], blocks[q % count, 1]
        item_forward(x, steps, delta, A, B, C, D, h, bounds, y, negative, b, q // count, lo, hi)


@jit
def item_backward(  # type: ignore[no-untyped-def]
    x, steps, delta, A, B, C, D, bounds, dy, g, dx, dsteps, ddelta, dA, dB, dC, dD, negative,
    b, q, head, lo, hi,
):  # fmt: skip
    """Adjoint of `item_forward`; `g` is dL/d(last state) and becomes dL/d(first state).

    What channels and heads share has an entry for each work item q.
    """
    length, N, width = x.shape[1], B.shape[3], hi - lo
    group = head // (x.shape[2] // B.shape[2])
    zero, one = x.dtype.type(0), x.dtype.type(1)
    sum_A, sum_D = zero, zero
    M, size = round_up(N, STATES), CHUNK * WIDTH
    space = np.zeros(2 * M * WIDTH + 4 * size + 4 * CHUNK * M, x.dtype)
    decay = np.empty(CHUNK, x.dtype)
    state, rest = space, space[2 * M * WIDTH :]
    adjoint = space[M * WIDTH : 2 * M * WIDTH]
    inputs, douts, rest = rest, rest[size:], rest[2 * size :]
    dinputs, ddecays, rest = rest[:size], rest[size : 2 * size], rest[2 * size :]
    Bs, Cs, dBs, dCs = rest, rest[CHUNK * M :], rest[2 * CHUNK * M :], rest[3 * CHUNK * M :]
    lay_out(g[b, head, :, lo:hi], adjoint, WIDTH)
    for chunk in range((length - 1) // CHUNK, -1, -1):
        first = chunk * CHUNK
        stop = min(first + CHUNK, length)
        flush(adjoint)
        lay_out(bounds[b, head, chunk, :, lo:hi], state, WIDTH)
        own, own_dy = x[b, first:stop, head, lo:hi], dy[b, first:stop, head, lo:hi]
        load_chunk(
            own, steps[b, first:stop, head], delta[b, first:stop, head], A[head], decay, inputs,
            negative,
        )  # fmt: skip
        lay_out(B[b, first:stop, group], Bs, M)
        lay_out(C[b, first:stop, group], Cs, M)
        lay_out(own_dy, douts, WIDTH)
        dinputs[:] = zero
        ddecays[:] = zero
        dBs[: 2 * CHUNK * M] = zero  # and dCs
        scan_backward(
            state, adjoint, decay, inputs, douts, dinputs, ddecays, Bs, Cs, dBs, dCs,
            stop - first, M,
        )  # fmt: skip
        for t in range(first, stop):
            k, step, dxt = t - first, steps[b, t, head], dx[b, t, head, lo:hi]
            dinput, part = dinputs[k * WIDTH :], ddecays[k * WIDTH :]
            ddecay, dstep, direct = zero, zero, zero
            for p in range(width):
                ddecay += part[p]
                dstep += dinput[p] * own[k, p]
                direct += own[k, p] * own_dy[k, p]
                dxt[p] = dinput[p] * step + D[head] * own_dy[k, p]
            dsteps[b, t, q] = dstep
            slope = decay[k]  # of the decay, by delta A
            if negative:
                slope += one
            ddelta[b, t, q] = ddecay * slope * A[head]
            sum_A += ddecay * slope * delta[b, t, head]
            sum_D += direct
        gather(dBs, M, dB[b, first:stop, q])
        gather(dCs, M, dC[b, first:stop, q])
    gather(adjoint, WIDTH, g[b, head, :, lo:hi])
    dA[b, q], dD[b, q] = sum_A, sum_D


@jit(parallel=True)
def backward(  # type: ignore[no-untyped-def]
    x, steps, delta, A, B, C, D, bounds, dy, g, dx, dsteps, ddelta, dA, dB, dC, dD, blocks,
    negative,
):  # fmt: skip
    """Every item, head and block of channels (S, 2)."""
    count = blocks.shape[0]
    items = x.shape[2] * count
    for item in numba.prange(x.shape[0] * items):
        b, q = item // items, item % items
        item_backward(
            x, steps, delta, A, B, C, D, bounds, dy, g, dx, dsteps, ddelta, dA, dB, dC, dD,
            negative, b, q, q // count, blocks[q % count, 0], blocks[q % count, 1],
        )  # fmt: skip


library = torch.library.Library("archbench", "FRAGMENT")
library.define(
    "ssd(Tensor x, Tensor steps, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D,"
    " Tensor? state, bool negative, bool save) -> (Tensor, Tensor, Tensor)"
)
library.define(
    "ssd_backward(Tensor x, Tensor steps, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D,"
    " Tensor bounds, Tensor dy, Tensor dlast, bool negative)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _bounds(x: Tensor, states: int, save: bool) -> Tensor:
    """Room for one state every `CHUNK` steps, (B, H, K, N, P); none where nothing is saved."""
    batch, length, heads, width = x.shape
    return x.new_empty(batch, heads, -(-length // CHUNK) if save else 0, states, width)


@torch.library.impl(library, "ssd", "CPU")
def _ssd(
    x: Tensor, steps: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor,
    state: Tensor | None, negative: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    batch, _, heads, width = x.shape
    states = B.shape[3]
    inputs = [t.contiguous() for t in (x, steps, delta, A, B, C, D)]
    h = x.new_zeros(batch, heads, states, width) if state is None else channels_last(state)
    y, bounds = torch.empty_like(inputs[0]), _bounds(x, states, save)
    run(forward, *inputs, h, bounds, y, blocks_of(width, WIDTH), numbers=(negative,))
    return y, h.transpose(2, 3).contiguous(), bounds  # (B, T, H, P), (B, H, P, N)


@torch.library.register_fake("archbench::ssd", lib=library)
def _ssd_fake(
    x: Tensor, steps: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor,
    state: Tensor | None, negative: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    last = x.new_empty(x.shape[0], *x.shape[2:], B.shape[3])
    return x.new_empty(x.shape), last, _bounds(x, B.shape[3], save)


@torch.library.impl(library, "ssd_backward", "CPU")
def _ssd_backward(
    x: Tensor, steps: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor,
    bounds: Tensor, dy: Tensor, dlast: Tensor, negative: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    batch, length, heads, width = x.shape
    groups, states = B.shape[2:]
    blocks = blocks_of(width, WIDTH)
    items = heads * len(blocks)
    inputs = [t.contiguous() for t in (x, steps, delta, A, B, C, D, bounds, dy)]
    g, dx = channels_last(dlast), torch.empty_like(inputs[0])
    dsteps, ddelta = (x.new_empty(batch, length, items) for _ in range(2))
    dA, dD = x.new_empty(batch, items), x.new_empty(batch, items)
    dB, dC = (x.new_empty(batch, length, items, states) for _ in range(2))
    run(backward, *inputs, g, dx, dsteps, ddelta, dA, dB, dC, dD, blocks, numbers=(negative,))
    dB, dC = (t.unflatten(2, (groups, -1)).sum(3) for t in (dB, dC))  # (B, T, G, N)
    dsteps, ddelta = (t.unflatten(2, (heads, -1)).sum(3) for t in (dsteps, ddelta))  # (B, T, H)
    dA, dD = (t.unflatten(1, (heads, -1)).sum((0, 2)) for t in (dA, dD))  # (H)
    return dx, dsteps, ddelta, dA, dB, dC, dD, g.transpose(2, 3).contiguous()


@torch.library.register_fake("archbench::ssd_backward", lib=library)
def _ssd_backward_fake(
    x: Tensor, steps: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor,
    bounds: Tensor, dy: Tensor, dlast: Tensor, negative: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(t.new_empty(t.shape) for t in (x, steps, delta, A, B, C, D, dlast))


differentiate(library, "ssd", options=1)


def ssd_fused(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor | None,
    steps: Tensor | None = None, negative: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As `ssd_reference`, on fp32 or fp64 CPU tensors.

    With `steps` (B, T, H) these multiply x instead of delta, which then is the decay's alone.
    """
    steps = delta if steps is None else steps
    operator = torch.ops.archbench.ssd.default
    return recur(operator, (x, steps, delta, A, B, C, D), state, negative)


def warm() -> None:
    """Compile both kernels, or load them from numba's cache."""
    x = torch.ones(1, 2, 1, 2, requires_grad=True)
    one, B = torch.ones(1), torch.ones(1, 2, 1, 2)
    ssd_fused(x, torch.ones(1, 2, 1), -one, B, B, one, None)[0].sum().backward()
