"""The recurrence of RWKV-7 as a fused CPU kernel, compiled by numba (optional).

The same function as `wkv7_reference` of models/backbones/wkv7.py, in fp32 or fp64. A head's matrix
state stays in the first-level cache while it walks through time. The forward keeps one state every
`CHUNK` steps; the backward recomputes the states of a chunk from it.

Per head, with a row of S for each value channel i and a column for each key channel j
(arXiv:2503.14456, eq. 15 to 17):

    S_t[i, j] = S_{t-1}[i, j] w_t[j] + (S_{t-1} a_t)[i] b_t[j] + v_t[i] k_t[j],     o_t = S_t r_t

The product S_t a_{t+1} that the next step needs is summed up while S_t is written, so every step
passes over the state once.

Everything that a step reads or writes in its inner loops lies in one workspace whose rows have a
length known to the compiler: it then sees that they do not overlap, and vectorises without a
remainder. What a head leaves of a row is zero.

Shapes: B batch, T time, H heads, N head size, K = ceil(T / CHUNK).
"""

import numba
import numpy as np
import torch
from torch import Tensor

from models.kernels.available import MAX_HEAD
from models.kernels.compiled import flushed, jit, run
from models.kernels.recurrence import differentiate, recur

CHUNK = 16
WIDTH = MAX_HEAD  # of a row of the workspace

# Rows of the workspace: a matrix (in the forward S transposed, in the backward its adjoint G), and
# vectors; in the backward also the states before each step of a chunk.
REMOVED, V, OUT, NEXT = range(WIDTH, WIDTH + 4)
W, K, B, R, A, DR, DW, DK, DA, DB = range(WIDTH, WIDTH + 10)
STATES = WIDTH + 10


@jit
def head_forward(r, w, k, v, a, b, state, bounds, o, n, h):  # type: ignore[no-untyped-def]
    """Head h of item n. `state` is the first one and becomes the last one."""
    steps, N = r.shape[1], r.shape[3]
    save = bounds.shape[2] > 0
    zero = r.dtype.type(0)
    space = np.zeros((WIDTH + 4, WIDTH), r.dtype)
    space[:N, :N] = state[n, h].T
    for j in range(N):
        aj = a[n, 0, h, j]
        for i in range(WIDTH):
            space[NEXT, i] += space[j, i] * aj
    for t in range(steps):
        if t % CHUNK == 0:
            for j in range(N):
                for i in range(WIDTH):
                    space[j, i] = flushed(space[j, i])
            if save:
                bounds[n, h, t // CHUNK] = space[:N, :N]  # transposed
        following = min(t + 1, steps - 1)
        for i in range(N):
            space[V, i] = v[n, t, h, i]
        for i in range(WIDTH):
            space[REMOVED, i] = space[NEXT, i]
            space[OUT, i], space[NEXT, i] = zero, zero
        for j in range(0, N - 1, 2):
            w0, k0, b0, r0 = w[n, t, h, j], k[n, t, h, j], b[n, t, h, j], r[n, t, h, j]
            w1, k1, b1 = w[n, t, h, j + 1], k[n, t, h, j + 1], b[n, t, h, j + 1]
            r1, a0, a1 = r[n, t, h, j + 1], a[n, following, h, j], a[n, following, h, j + 1]
            for i in range(WIDTH):
                x, y = space[REMOVED, i], space[V, i]
                s0 = space[j, i] * w0 + x * b0 + y * k0
                s1 = space[j + 1, i] * w1 + x * b1 + y * k1
                space[j, i], space[j + 1, i] = s0, s1
                space[OUT, i] += s0 * r0 + s1 * r1
                space[NEXT, i] += s0 * a0 + s1 * a1
        for j in range(N // 2 * 2, N):
            wj, kj, bj, rj = w[n, t, h, j], k[n, t, h, j], b[n, t, h, j], r[n, t, h, j]
            aj = a[n, following, h, j]
            for i in range(WIDTH):
                s = space[j, i] * wj + space[REMOVED, i] * bj + space[V, i] * kj
                space[j, i] = s
                space[OUT, i] += s * rj
                space[NEXT, i] += s * aj
        for i in range(N):
            o[n, t, h, i] = space[OUT, i]
    state[n, h] = space[:N, :N].T


@jit(parallel=True)
def forward(r, w, k, v, a, b, state, bounds, o):  # type: ignore[no-untyped-def]
    heads = r.shape[2]
    for item in numba.prange(r.shape[0] * heads):
        head_forward(r, w, k, v, a, b, state, bounds, o, item // heads, item % heads)


@jit
def head_backward(  # type: ignore[no-untyped-def]
    r, w, k, v, a, b, bounds, do, g, dr, dw, dk, dv, da, db, n, h
):
    """Adjoint of `head_forward`. `g` is dL/d(last state) and becomes dL/d(first state)."""
    steps, N = r.shape[1], r.shape[3]
    zero = r.dtype.type(0)
    space = np.zeros((STATES + CHUNK * N, WIDTH), r.dtype)
    removed = np.empty((CHUNK, N), r.dtype)  # S_{t-1} a_t
    dremoved = np.empty(N, r.dtype)
    space[:N, :N] = g[n, h]
    for chunk in range((steps - 1) // CHUNK, -1, -1):
        first = chunk * CHUNK
        count = min(CHUNK, steps - first)
        space[STATES : STATES + N, :N] = bounds[n, h, chunk].T
        for i in range(N):
            for j in range(WIDTH):
                space[i, j] = flushed(space[i, j])
        for i in range(N):
            total = zero
            for j in range(N):
                total += space[STATES + i, j] * a[n, first, h, j]
            removed[0, i] = total
        for q in range(count - 1):
            t, base = first + q, STATES + q * N
            for j in range(N):
                space[W, j], space[K, j] = w[n, t, h, j], k[n, t, h, j]
                space[B, j], space[A, j] = b[n, t, h, j], a[n, t + 1, h, j]
            for i in range(N):
                x, y, product = removed[q, i], v[n, t, h, i], zero
                for j in range(WIDTH):
                    s = space[base + i, j] * space[W, j] + x * space[B, j] + y * space[K, j]
                    space[base + N + i, j] = s
                    product += s * space[A, j]
                removed[q + 1, i] = product
        for q in range(count - 1, -1, -1):
            t, base = first + q, STATES + q * N
            for j in range(N):
                space[W, j], space[K, j] = w[n, t, h, j], k[n, t, h, j]
                space[B, j], space[R, j] = b[n, t, h, j], r[n, t, h, j]
                space[A, j] = a[n, t, h, j]
                space[DR, j], space[DW, j], space[DK, j] = zero, zero, zero
                space[DA, j], space[DB, j] = zero, zero
            through_removed, through_v = zero, zero
            for i in range(0, N - 1, 2):
                d0, d1 = do[n, t, h, i], do[n, t, h, i + 1]
                through_removed += d0 * removed[q, i] + d1 * removed[q, i + 1]
                through_v += d0 * v[n, t, h, i] + d1 * v[n, t, h, i + 1]
                dx0, dx1, dv0, dv1 = zero, zero, zero, zero
                for j in range(WIDTH):
                    # o = S r reaches every step: G_t += do_t r_t^T.
                    g0 = space[i, j] + d0 * space[R, j]
                    g1 = space[i + 1, j] + d1 * space[R, j]
                    space[i, j], space[i + 1, j] = g0, g1
                    dx0 += g0 * space[B, j]
                    dx1 += g1 * space[B, j]
                    dv0 += g0 * space[K, j]
                    dv1 += g1 * space[K, j]
                dremoved[i], dremoved[i + 1] = dx0, dx1
                dv[n, t, h, i], dv[n, t, h, i + 1] = dv0, dv1
            for i in range(N // 2 * 2, N):
                d = do[n, t, h, i]
                through_removed += d * removed[q, i]
                through_v += d * v[n, t, h, i]
                dx, dy = zero, zero
                for j in range(WIDTH):
                    gt = space[i, j] + d * space[R, j]
                    space[i, j] = gt
                    dx += gt * space[B, j]
                    dy += gt * space[K, j]
                dremoved[i], dv[n, t, h, i] = dx, dy
            for i in range(0, N - 1, 2):
                d0, x0, y0, dx0 = do[n, t, h, i], removed[q, i], v[n, t, h, i], dremoved[i]
                d1, x1, y1 = do[n, t, h, i + 1], removed[q, i + 1], v[n, t, h, i + 1]
                dx1 = dremoved[i + 1]
                for j in range(WIDTH):
                    g0, g1 = space[i, j], space[i + 1, j]
                    s0, s1 = space[base + i, j], space[base + i + 1, j]
                    space[DR, j] += d0 * s0 + d1 * s1
                    space[DW, j] += g0 * s0 + g1 * s1
                    space[DK, j] += g0 * y0 + g1 * y1
                    space[DB, j] += g0 * x0 + g1 * x1
                    space[DA, j] += dx0 * s0 + dx1 * s1
                    # G_{t-1} = G_t diag(w_t) + (G_t b_t) a_t^T
                    space[i, j] = g0 * space[W, j] + dx0 * space[A, j]
                    space[i + 1, j] = g1 * space[W, j] + dx1 * space[A, j]
            for i in range(N // 2 * 2, N):
                d, x, y, dx = do[n, t, h, i], removed[q, i], v[n, t, h, i], dremoved[i]
                for j in range(WIDTH):
                    gt, before = space[i, j], space[base + i, j]
                    space[DR, j] += d * before
                    space[DW, j] += gt * before
                    space[DK, j] += gt * y
                    space[DB, j] += gt * x
                    space[DA, j] += dx * before
                    space[i, j] = gt * space[W, j] + dx * space[A, j]
            for j in range(N):
                # dr = S_t^T do, with S_t spelled out.
                dr[n, t, h, j] = (
                    space[DR, j] * space[W, j]
                    + through_removed * space[B, j]
                    + through_v * space[K, j]
                )
                dw[n, t, h, j] = space[DW, j]
                dk[n, t, h, j], da[n, t, h, j] = space[DK, j], space[DA, j]
                db[n, t, h, j] = space[DB, j]
    g[n, h] = space[:N, :N]


@jit(parallel=True)
def backward(  # type: ignore[no-untyped-def]
    r, w, k, v, a, b, bounds, do, g, dr, dw, dk, dv, da, db
):
    heads = r.shape[2]
    for item in numba.prange(r.shape[0] * heads):
        head_backward(
            r, w, k, v, a, b, bounds, do, g, dr, dw, dk, dv, da, db,
            item // heads, item % heads,
        )  # fmt: skip


library = torch.library.Library("archbench", "FRAGMENT")
library.define(
    "wkv7(Tensor r, Tensor w, Tensor k, Tensor v, Tensor a, Tensor b, Tensor state, bool save)"
    " -> (Tensor, Tensor, Tensor)"
)
library.define(
    "wkv7_backward(Tensor r, Tensor w, Tensor k, Tensor v, Tensor a, Tensor b, Tensor bounds,"
    " Tensor d_out, Tensor d_state) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _bounds(r: Tensor, save: bool) -> Tensor:
    B, T, H, N = r.shape
    return r.new_empty(B, H, -(-T // CHUNK) if save else 0, N, N)


@torch.library.impl(library, "wkv7", "CPU")
def _wkv7(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    r, w, k, v, a, b = (x.contiguous() for x in (r, w, k, v, a, b))
    last = state.clone(memory_format=torch.contiguous_format)
    out, bounds = torch.empty_like(r), _bounds(r, save)
    run(forward, r, w, k, v, a, b, last, bounds, out)
    return out, last, bounds


@torch.library.register_fake("archbench::wkv7", lib=library)
def _wkv7_fake(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return r.new_empty(r.shape), state.new_empty(state.shape), _bounds(r, save)


@torch.library.impl(library, "wkv7_backward", "CPU")
def _wkv7_backward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, bounds: Tensor,
    d_out: Tensor, d_state: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    inputs = [x.contiguous() for x in (r, w, k, v, a, b, bounds, d_out)]
    g = d_state.clone(memory_format=torch.contiguous_format)
    grads = [torch.empty_like(inputs[0]) for _ in range(6)]
    run(backward, *inputs, g, *grads)
    return (*grads, g)


@torch.library.register_fake("archbench::wkv7_backward", lib=library)
def _wkv7_backward_fake(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, bounds: Tensor,
    d_out: Tensor, d_state: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    return (*(r.new_empty(r.shape) for _ in range(6)), d_state.new_empty(d_state.shape))


differentiate(library, "wkv7")


def wkv7_fused(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """As `wkv7_reference`, on fp32 or fp64 CPU tensors."""
    return recur(torch.ops.archbench.wkv7.default, (r, log_w.exp(), k, v, a, b), state)


def warm() -> None:
    """Compile both kernels, or load them from numba's cache."""
    r = torch.ones(1, 1, 1, 2, requires_grad=True)
    out, _ = wkv7_fused(r, r, r, r, r, r, torch.zeros(1, 1, 2, 2))
    out.sum().backward()
