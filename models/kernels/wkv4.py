"""The WKV operator of RWKV-4 as a fused CPU kernel, compiled by numba (optional).

The same function as `wkv4_reference` of models/backbones/wkv4.py, in fp32 or fp64. The forward
keeps one state every `CHUNK` steps; the backward recomputes the states of a chunk from it. The work
is cut by batch item and by blocks of `WIDTH` channels, which lie side by side in a workspace whose
rows have a length known to the compiler.

Of two exponentials with the largest exponent taken out one is 1, so that each pair is one
exponential of minus the distance.

Shapes: B batch, T time, D channels, K = ceil(T / CHUNK), S blocks. The state is (B, 3, D).
"""

import numba
import numpy as np
import torch
from torch import Tensor

from models.kernels.compiled import LOG2E, blocks_of, exp2, flushed, jit, run
from models.kernels.recurrence import differentiate, recur

CHUNK = 32
WIDTH = 64  # channels of one work item

# Rows of the workspace: both sums and their exponent, the parameters, and what a step has; in the
# backward also the adjoints, and the sums before each step of a chunk.
A, B, P, W, U, K, V, OUT = range(8)
DA, DB, DW, DU, DK, DV = range(8, 14)
STATES = 14


@jit
def load(space, row, given, lo, hi):  # type: ignore[no-untyped-def]
    """Channels lo..hi of a row; what a narrow block leaves of it stays zero."""
    for e in range(hi - lo):
        space[row, e] = given[lo + e]


@jit
def store(space, row, taken, lo, hi):  # type: ignore[no-untyped-def]
    """The way back."""
    for e in range(hi - lo):
        taken[lo + e] = space[row, e]


@numba.njit(inline="always")
def weights(distance):  # type: ignore[no-untyped-def]
    """e^(x - max(x, y)) and e^(y - max(x, y)) for x - y."""
    one = type(distance)(1)
    less = exp2(-abs(distance) * type(distance)(LOG2E))
    return one if distance >= 0 else less, less if distance >= 0 else one


@jit
def advance(space):  # type: ignore[no-untyped-def]
    """The sums after a step."""
    for e in range(WIDTH):
        decayed, key = space[P, e] + space[W, e], space[K, e]
        kept, new = weights(decayed - key)
        space[A, e] = kept * space[A, e] + new * space[V, e]
        space[B, e] = kept * space[B, e] + new
        space[P, e] = decayed if decayed >= key else key


@jit
def block_forward(k, v, w, u, state, bounds, y, n, lo, hi):  # type: ignore[no-untyped-def]
    """Channels lo..hi of item n. `state` is the first one and becomes the last one."""
    space = np.zeros((OUT + 1, WIDTH), k.dtype)
    for i in range(3):
        load(space, i, state[n, i], lo, hi)
    load(space, W, w, lo, hi)
    load(space, U, u, lo, hi)
    for t in range(k.shape[1]):
        if t % CHUNK == 0 and bounds.shape[1] > 0:
            for i in range(3):
                store(space, i, bounds[n, t // CHUNK, i], lo, hi)
        load(space, K, k[n, t], lo, hi)
        load(space, V, v[n, t], lo, hi)
        for e in range(WIDTH):
            past, own = weights(space[P, e] - space[U, e] - space[K, e])
            numerator = past * space[A, e] + own * space[V, e]
            space[OUT, e] = numerator / (past * space[B, e] + own)
        advance(space)
        store(space, OUT, y[n, t], lo, hi)
    for i in range(3):
        store(space, i, state[n, i], lo, hi)


@jit(parallel=True)
def forward(k, v, w, u, state, bounds, y, blocks):  # type: ignore[no-untyped-def]
    """Every item and block of channels (S, 2)."""
    count = blocks.shape[0]
    for item in numba.prange(k.shape[0] * count):
        n, s = item // count, item % count
        block_forward(k, v, w, u, state, bounds, y, n, blocks[s, 0], blocks[s, 1])


@jit
def retreat(space, base):  # type: ignore[no-untyped-def]
    """The adjoint of a step, whose sums before it stand from row `base` on."""
    one = space.dtype.type(1)
    for e in range(WIDTH):
        a, b, p = space[base, e], space[base + 1, e], space[base + 2, e]
        key, value = space[K, e], space[V, e]
        past, own = weights(p - space[U, e] - key)
        scale = one / (past * b + own)
        out = (past * a + own * value) * scale
        through = space[OUT, e] * scale  # the gradient of the numerator
        kept, new = weights(p + space[W, e] - key)
        da, db = space[DA, e], space[DB, e]
        direct = own * through * (value - out)
        space[DK, e] = direct + new * (value * da + db)
        space[DV, e] = own * through + new * da
        space[DU, e] += direct
        space[DW, e] += kept * (a * da + b * db)
        space[DA, e] = kept * da + past * through
        space[DB, e] = kept * db - past * through * out


@jit
def block_backward(  # type: ignore[no-untyped-def]
    k, v, w, u, bounds, dy, g, dk, dv, dw, du, n, lo, hi
):
    """Adjoint of `block_forward`. `g` is dL/d(last state) and becomes dL/d(first state)."""
    steps = k.shape[1]
    space = np.zeros((STATES + 3 * CHUNK, WIDTH), k.dtype)
    load(space, W, w, lo, hi)
    load(space, U, u, lo, hi)
    load(space, DA, g[n, 0], lo, hi)
    load(space, DB, g[n, 1], lo, hi)
    for chunk in range((steps - 1) // CHUNK, -1, -1):
        first = chunk * CHUNK
        count = min(CHUNK, steps - first)
        for e in range(WIDTH):
            space[DA, e], space[DB, e] = flushed(space[DA, e]), flushed(space[DB, e])
        for i in range(3):
            load(space, i, bounds[n, chunk, i], lo, hi)
        for q in range(count):
            for i in range(3):
                space[STATES + 3 * q + i] = space[i]
            load(space, K, k[n, first + q], lo, hi)
            load(space, V, v[n, first + q], lo, hi)
            advance(space)
        for q in range(count - 1, -1, -1):
            t = first + q
            load(space, K, k[n, t], lo, hi)
            load(space, V, v[n, t], lo, hi)
            load(space, OUT, dy[n, t], lo, hi)
            retreat(space, STATES + 3 * q)
            store(space, DK, dk[n, t], lo, hi)
            store(space, DV, dv[n, t], lo, hi)
    store(space, DA, g[n, 0], lo, hi)
    store(space, DB, g[n, 1], lo, hi)
    g[n, 2, lo:hi] = 0
    store(space, DW, dw[n], lo, hi)
    store(space, DU, du[n], lo, hi)


@jit(parallel=True)
def backward(k, v, w, u, bounds, dy, g, dk, dv, dw, du, blocks):  # type: ignore[no-untyped-def]
    """Every item and block of channels (S, 2)."""
    count = blocks.shape[0]
    for item in numba.prange(k.shape[0] * count):
        n, s = item // count, item % count
        block_backward(k, v, w, u, bounds, dy, g, dk, dv, dw, du, n, blocks[s, 0], blocks[s, 1])


library = torch.library.Library("archbench", "FRAGMENT")
library.define(
    "wkv4(Tensor k, Tensor v, Tensor w, Tensor u, Tensor state, bool save)"
    " -> (Tensor, Tensor, Tensor)"
)
library.define(
    "wkv4_backward(Tensor k, Tensor v, Tensor w, Tensor u, Tensor bounds, Tensor d_out,"
    " Tensor d_state) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _bounds(k: Tensor, save: bool) -> Tensor:
    """Room for one state every `CHUNK` steps, (B, K, 3, D); none where nothing is saved."""
    batch, length, channels = k.shape
    return k.new_empty(batch, -(-length // CHUNK) if save else 0, 3, channels)


@torch.library.impl(library, "wkv4", "CPU")
def _wkv4(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    k, v, w, u = (x.contiguous() for x in (k, v, w, u))
    last = state.clone(memory_format=torch.contiguous_format)
    out, bounds = torch.empty_like(k), _bounds(k, save)
    run(forward, k, v, w, u, last, bounds, out, blocks_of(k.shape[2], WIDTH))
    return out, last, bounds


@torch.library.register_fake("archbench::wkv4", lib=library)
def _wkv4_fake(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return k.new_empty(k.shape), state.new_empty(state.shape), _bounds(k, save)


@torch.library.impl(library, "wkv4_backward", "CPU")
def _wkv4_backward(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, bounds: Tensor, d_out: Tensor, d_state: Tensor
) -> tuple[Tensor, ...]:
    inputs = [x.contiguous() for x in (k, v, w, u, bounds, d_out)]
    g = d_state.clone(memory_format=torch.contiguous_format)
    dk, dv = (torch.empty_like(inputs[0]) for _ in range(2))
    dw, du = (k.new_empty(k.shape[0], k.shape[2]) for _ in range(2))  # (B, D)
    run(backward, *inputs, g, dk, dv, dw, du, blocks_of(k.shape[2], WIDTH))
    return dk, dv, dw.sum(0), du.sum(0), g


@torch.library.register_fake("archbench::wkv4_backward", lib=library)
def _wkv4_backward_fake(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, bounds: Tensor, d_out: Tensor, d_state: Tensor
) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (k, v, w, u, d_state))


differentiate(library, "wkv4")


def wkv4_fused(k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """As `wkv4_reference`, on fp32 or fp64 CPU tensors."""
    return recur(torch.ops.archbench.wkv4.default, (k, v, w, u), state)


def warm() -> None:
    """Compile both kernels, or load them from numba's cache."""
    k, w = torch.ones(1, 1, 2, requires_grad=True), -torch.ones(2)
    out, _ = wkv4_fused(k, k, w, w, torch.zeros(1, 3, 2))
    out.sum().backward()
