"""The recurrence of Mamba-2 as a fused CPU kernel, compiled by numba (optional).

The same function as `ssd_reference` of models/backbones/ssd.py, in fp32 or fp64. The matrix form
of the paper (arXiv:2405.21060) is made for matrix units; a CPU has none, and there the plain
recurrence with the state in cache moves far less memory. The forward keeps one state every `CHUNK`
steps; the backward recomputes the states of a chunk from it. The work is cut by batch item, head
and, since every channel of a head has a state of its own, by blocks of `WIDTH` channels.

What the inner loops read and write lies in one workspace whose rows have a length known to the
compiler: it then sees that they do not overlap, and vectorises without a remainder. What an item
leaves of a row is zero.

Shapes: B batch, T time, H heads, P headdim, G groups, N d_state, K = ceil(T / CHUNK), Q work items
of a batch item. The state is (B, H, N, P) here, channels last.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from models.kernels.available import MAX_STATES
from models.kernels.compiled import blocks_of, flushed, jit, run
from models.kernels.recurrence import channels_last, differentiate, recur

CHUNK = 16
WIDTH = 64  # of a row of the workspace: channels of one work item
# Rows: the state or its adjoint, vectors, in the backward the states before each step of a chunk.
X, Y, DX, DDECAY = range(MAX_STATES, MAX_STATES + 4)
HISTORY = MAX_STATES + 4


@jit
def item_forward(  # type: ignore[no-untyped-def]
    x, delta, A, B, C, D, h, bounds, y, b, head, lo, hi
):
    """Channels lo..hi of a head of item b. `h` is the first state and becomes the last."""
    steps, N, width = x.shape[1], B.shape[3], hi - lo
    group = head // (x.shape[2] // B.shape[2])
    save = bounds.shape[2] > 0
    space = np.zeros((HISTORY, WIDTH), x.dtype)
    space[:N, :width] = h[b, head, :, lo:hi]
    for t in range(steps):
        if t % CHUNK == 0:
            for n in range(N):
                for p in range(WIDTH):
                    space[n, p] = flushed(space[n, p])
            if save:
                bounds[b, head, t // CHUNK, :, lo:hi] = space[:N, :width]
        xt, yt, step = x[b, t, head, lo:hi], y[b, t, head, lo:hi], delta[b, t, head]
        decay = np.exp(step * A[head])
        for p in range(width):
            space[X, p], space[Y, p] = step * xt[p], D[head] * xt[p]
        for n in range(0, N - 1, 2):
            B0, B1, C0, C1 = (
                B[b, t, group, n], B[b, t, group, n + 1], C[b, t, group, n], C[b, t, group, n + 1],
            )  # fmt: skip
            for p in range(WIDTH):
                # h = exp(delta A) h + delta x B^T, y = h C.
                first = decay * space[n, p] + space[X, p] * B0
                second = decay * space[n + 1, p] + space[X, p] * B1
                space[n, p], space[n + 1, p] = first, second
                space[Y, p] += first * C0 + second * C1
        for n in range(N // 2 * 2, N):
            Bn, Cn = B[b, t, group, n], C[b, t, group, n]
            for p in range(WIDTH):
                value = decay * space[n, p] + space[X, p] * Bn
                space[n, p] = value
                space[Y, p] += value * Cn
        for p in range(width):
            yt[p] = space[Y, p]
    h[b, head, :, lo:hi] = space[:N, :width]


@jit(parallel=True)
def forward(x, delta, A, B, C, D, h, bounds, y, blocks):  # type: ignore[no-untyped-def]
    """Every item, head and block of channels (S, 2)."""
    count = blocks.shape[0]
    items = x.shape[2] * count
    for item in numba.prange(x.shape[0] * items):
        b, q = item // items, item % items
        lo, hi = blocks[q % count, 0], blocks[q % count, 1]
        item_forward(x, delta, A, B, C, D, h, bounds, y, b, q // count, lo, hi)


@jit
def item_backward(  # type: ignore[no-untyped-def]
    x, delta, A, B, C, D, bounds, dy, g, dx, ddelta, dA, dB, dC, dD, b, q, head, lo, hi
):
    """Adjoint of `item_forward`; `g` is dL/d(last state) and becomes dL/d(first state).

    What channels and heads share has an entry for each work item q.
    """
    steps, N, width = x.shape[1], B.shape[3], hi - lo
    group = head // (x.shape[2] // B.shape[2])
    zero = x.dtype.type(0)
    sum_A, sum_D = zero, zero
    space = np.zeros((HISTORY + CHUNK * N, WIDTH), x.dtype)
    space[:N, :width] = g[b, head, :, lo:hi]
    for chunk in range((steps - 1) // CHUNK, -1, -1):
        first = chunk * CHUNK
        count = min(CHUNK, steps - first)
        space[HISTORY : HISTORY + N, :width] = bounds[b, head, chunk, :, lo:hi]
        for n in range(N):
            for p in range(WIDTH):
                space[n, p] = flushed(space[n, p])
        for k in range(count - 1):
            t, before = first + k, HISTORY + k * N
            xt, step = x[b, t, head, lo:hi], delta[b, t, head]
            decay = np.exp(step * A[head])
            for p in range(width):
                space[X, p] = step * xt[p]
            for n in range(N):
                Bn = B[b, t, group, n]
                for p in range(WIDTH):
                    space[before + N + n, p] = decay * space[before + n, p] + space[X, p] * Bn
        for k in range(count - 1, -1, -1):
            t, before = first + k, HISTORY + k * N
            xt, dyt, dxt = x[b, t, head, lo:hi], dy[b, t, head, lo:hi], dx[b, t, head, lo:hi]
            step = delta[b, t, head]
            decay = np.exp(step * A[head])
            through_x, direct = zero, zero
            for p in range(width):
                space[X, p], space[Y, p] = step * xt[p], dyt[p]
                space[DX, p], space[DDECAY, p] = zero, zero
                through_x += step * xt[p] * dyt[p]
                direct += xt[p] * dyt[p]
            for n in range(N):
                Bn, Cn, dBn, dCn = B[b, t, group, n], C[b, t, group, n], zero, zero
                for p in range(WIDTH):
                    # G_t = C_t dy_t^T + decay_{t+1} G_{t+1}
                    gt, state = space[n, p] + Cn * space[Y, p], space[before + n, p]
                    dCn += state * space[Y, p]
                    dBn += gt * space[X, p]
                    space[DX, p] += gt * Bn
                    space[DDECAY, p] += gt * state
                    space[n, p] = gt * decay
                # dC = S_t dy, with S_t spelled out.
                dB[b, t, q, n], dC[b, t, q, n] = dBn, decay * dCn + Bn * through_x
            ddecay, dstep = zero, zero
            for p in range(width):
                ddecay += space[DDECAY, p]
                dstep += space[DX, p] * xt[p]
                dxt[p] = space[DX, p] * step + D[head] * dyt[p]
            ddelta[b, t, q] = dstep + ddecay * decay * A[head]
            sum_A += ddecay * decay * step
            sum_D += direct
    g[b, head, :, lo:hi] = space[:N, :width]
    dA[b, q], dD[b, q] = sum_A, sum_D


@jit(parallel=True)
def backward(  # type: ignore[no-untyped-def]
    x, delta, A, B, C, D, bounds, dy, g, dx, ddelta, dA, dB, dC, dD, blocks
):
    """Every item, head and block of channels (S, 2)."""
    count = blocks.shape[0]
    items = x.shape[2] * count
    for item in numba.prange(x.shape[0] * items):
        b, q = item // items, item % items
        item_backward(
            x, delta, A, B, C, D, bounds, dy, g, dx, ddelta, dA, dB, dC, dD,
            b, q, q // count, blocks[q % count, 0], blocks[q % count, 1],
        )  # fmt: skip


library = torch.library.Library("archbench", "FRAGMENT")
library.define(
    "ssd(Tensor x, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D, Tensor? state, bool save)"
    " -> (Tensor, Tensor, Tensor)"
)
library.define(
    "ssd_backward(Tensor x, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D, Tensor bounds,"
    " Tensor dy, Tensor dlast) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _bounds(x: Tensor, states: int, save: bool) -> Tensor:
    """Room for one state every `CHUNK` steps, (B, H, K, N, P); none where nothing is saved."""
    batch, length, heads, width = x.shape
    return x.new_empty(batch, heads, -(-length // CHUNK) if save else 0, states, width)


@torch.library.impl(library, "ssd", "CPU")
def _ssd(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    batch, _, heads, width = x.shape
    states = B.shape[3]
    inputs = [t.contiguous() for t in (x, delta, A, B, C, D)]
    h = x.new_zeros(batch, heads, states, width) if state is None else channels_last(state)
    y, bounds = torch.empty_like(inputs[0]), _bounds(x, states, save)
    run(forward, *inputs, h, bounds, y, blocks_of(width, WIDTH))
    return y, h.transpose(2, 3).contiguous(), bounds  # (B, T, H, P), (B, H, P, N)


@torch.library.register_fake("archbench::ssd", lib=library)
def _ssd_fake(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    last = x.new_empty(x.shape[0], *x.shape[2:], B.shape[3])
    return x.new_empty(x.shape), last, _bounds(x, B.shape[3], save)


@torch.library.impl(library, "ssd_backward", "CPU")
def _ssd_backward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bounds: Tensor,
    dy: Tensor, dlast: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    batch, length, heads, width = x.shape
    groups, states = B.shape[2:]
    blocks = blocks_of(width, WIDTH)
    items = heads * len(blocks)
    inputs = [t.contiguous() for t in (x, delta, A, B, C, D, bounds, dy)]
    g, dx = channels_last(dlast), torch.empty_like(inputs[0])
    ddelta = x.new_empty(batch, length, items)
    dA, dD = x.new_empty(batch, items), x.new_empty(batch, items)
    dB, dC = (x.new_empty(batch, length, items, states) for _ in range(2))
    run(backward, *inputs, g, dx, ddelta, dA, dB, dC, dD, blocks)
    dB, dC = (t.unflatten(2, (groups, -1)).sum(3) for t in (dB, dC))  # (B, T, G, N)
    ddelta = ddelta.unflatten(2, (heads, -1)).sum(3)  # (B, T, H)
    dA, dD = (t.unflatten(1, (heads, -1)).sum((0, 2)) for t in (dA, dD))  # (H)
    return dx, ddelta, dA, dB, dC, dD, g.transpose(2, 3).contiguous()


@torch.library.register_fake("archbench::ssd_backward", lib=library)
def _ssd_backward_fake(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bounds: Tensor,
    dy: Tensor, dlast: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(t.new_empty(t.shape) for t in (x, delta, A, B, C, D, dlast))


differentiate(library, "ssd")


def ssd_fused(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `ssd_reference`, on fp32 or fp64 CPU tensors."""
    return recur(torch.ops.archbench.ssd.default, (x, delta, A, B, C, D), state)


def warm() -> None:
    """Compile both kernels, or load them from numba's cache."""
    x = torch.ones(1, 2, 1, 2, requires_grad=True)
    one, B = torch.ones(1), torch.ones(1, 2, 1, 2)
    ssd_fused(x, torch.ones(1, 2, 1), -one, B, B, one, None)[0].sum().backward()
