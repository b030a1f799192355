"""Causal attention of whole sequences as a fused CPU kernel, forward and backward (optional).

FlashAttention-2 (arXiv:2307.08691) in fp32 or fp64: blocks of queries meet blocks of keys, no
matrix of all pairs is kept, and no block is computed that lies in the future as a whole. A block's
products stay in the cache (`tile`), and what lies between them is a pass in the widest vectors
(`vectors`). Exponentials are to base 2: its logarithm is a factor of the queries.

Shapes: B batch, T queries, S >= T keys, H query heads, K key-value heads, d head width; P places of
a block, W is d up to the next multiple of LANES. The last query sits at the last key.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from models.kernels.compiled import LOG2E, exp2, jit, run
from models.kernels.layout import round_up
from models.kernels.operators import register_gradient
from models.kernels.tile import multiply
from models.kernels.vectors import LANES, softmax_functions

P = 64
largest, exponentiate, weigh = softmax_functions(P, P)


@jit
def pack(x, factor, out, width):  # type: ignore[no-untyped-def]
    """Rows x (N, d) times a factor, `width` numbers apart; zeros are what is left of `out`."""
    N, d = x.shape
    for i in range(N):
        for j in range(d):
            out[i * width + j] = x[i, j] * factor
        for j in range(d, width):
            out[i * width + j] = 0
    out[N * width :] = 0


@jit
def pack_columns(x, factor, out):  # type: ignore[no-untyped-def]
    """Rows x (N, d) times a factor as columns of a block, out (d, P); zeros are what is left."""
    N, d = x.shape
    for j in range(d):
        for i in range(N):
            out[j * P + i] = x[i, j] * factor
        for i in range(N, P):
            out[j * P + i] = 0


@jit
def accumulate(scores, seen, highest, total, base, shrink, sums, W):  # type: ignore[no-untyped-def]
    """Turn a block's scores into exponentials; bring what was summed to the new maximum.

    Lines 9 and 10 of algorithm 1, but for the product that adds to `sums` (P, W). A row of scores
    is a key's, a column a query's: query i sees the first seen + i keys of the block, and of the
    others zeros are made.
    """
    zero, lowest, one = scores.dtype.type(0), scores.dtype.type(-np.inf), scores.dtype.type(1)
    for j in range(max(seen, 0), P):
        scores[j * P : j * P + min(j - seen + 1, P)] = lowest
    shrink[:] = highest
    largest(scores, highest)
    for i in range(P):
        # Scores that overflowed, all of them: nothing is summed yet, and zero will do.
        base[i] = zero if highest[i] == lowest else highest[i]
        shrink[i] = exp2(shrink[i] - base[i])
        total[i] *= shrink[i]
    for i in range(P):
        if shrink[i] != one:
            for j in range(W):
                sums[i * W + j] *= shrink[i]
    exponentiate(scores, base, total)
    for j in range(max(seen, 0), P):
        scores[j * P : j * P + min(j - seen + 1, P)] = zero


@jit
def attend_head(q, k, v, scale, space, y, lse):  # type: ignore[no-untyped-def]
    """q and y (T, d), k and v (S, d), lse (T), the base-2 logarithm of the sum of exponentials."""
    T, d = q.shape
    S = k.shape[0]
    W, room = round_up(d, LANES), round_up(S, P)
    keys, values, rest = space[: room * W], space[room * W :][: room * W], space[2 * room * W :]
    queries, sums, scores = rest[: P * d], rest[P * d :][: P * W], rest[P * (d + W) :][: P * P]
    highest, total = np.empty(P, q.dtype), np.empty(P, q.dtype)
    base, shrink = np.empty(P, q.dtype), np.empty(P, q.dtype)
    one = q.dtype.type(1)
    pack(k, one, keys, W)
    pack(v, one, values, W)
    for first in range(0, T, P):
        count = min(P, T - first)
        pack_columns(q[first : first + count], q.dtype.type(scale * LOG2E), queries)
        sums[:] = 0
        highest[:] = -np.inf
        total[:] = 0
        seen = S - T + first + 1  # by the first of these queries
        for start in range(0, seen + count - 1, P):
            multiply(keys, start * W, W, 1, queries, 0, P, scores, 0, P, P, P, d, True)
            accumulate(scores, seen - start, highest, total, base, shrink, sums, W)
            multiply(scores, 0, 1, P, values, start * W, W, sums, 0, W, P, W, P, False)
        for i in range(count):
            # As 0 / 0 where every score is lost.
            factor = one / total[i] if highest[i] > -np.inf else q.dtype.type(np.nan)
            for j in range(d):
                y[first + i, j] = sums[i * W + j] * factor
            lse[first + i] = highest[i] + np.log2(total[i])


@jit(parallel=True)
def forward(q, k, v, y, lse, spaces, scale):  # type: ignore[no-untyped-def]
    """q and y (B, T, H, d), k and v (B, S, K, d), lse (B, H, T), a workspace for each thread."""
    H = q.shape[2]
    group = H // k.shape[2]
    for unit in numba.prange(q.shape[0] * H):
        b, h = unit // H, unit % H
        attend_head(
            q[b, :, h], k[b, :, h // group], v[b, :, h // group], scale,
            spaces[numba.get_thread_id()], y[b, :, h], lse[b, h],
        )  # fmt: skip


@jit
def probabilities(scores, slopes, seen, logs, means):  # type: ignore[no-untyped-def]
    """Lines 11 and 14 of algorithm 2: scores become p = 2^(s - lse), and dp becomes p (dp - D)."""
    zero = scores.dtype.type(0)
    weigh(scores, slopes, logs, means)
    for i in range(min(P, P - seen)):
        at = i * P
        for j in range(max(seen + i, 0), P):
            scores[at + j] = zero
            slopes[at + j] = zero


@jit
def differentiate_head(q, k, v, y, lse, dy, scale, space, dq, dk, dv):  # type: ignore[no-untyped-def]
    """Of one query head, which adds to dk and dv (S, d)."""
    T, d = q.shape
    S = k.shape[0]
    W, room = round_up(d, LANES), round_up(T, P)
    queries, grads, dqueries = space[: room * W], space[room * W :], space[2 * room * W :]
    rest = space[3 * room * W :]
    # Of a block: three times (P, W), twice (d, P), twice (P, P).
    keys, dkeys, dvalues = rest[: P * W], rest[P * W : 2 * P * W], rest[2 * P * W : 3 * P * W]
    rest = rest[3 * P * W :]
    columns, value_columns = rest[: P * d], rest[P * d : 2 * P * d]
    scores, slopes = rest[2 * P * d :][: P * P], rest[2 * P * d + P * P :][: P * P]
    # Queries that only fill a block are zeros, and so is what they send back.
    logs, means = np.full(room, np.inf, q.dtype), np.zeros(room, q.dtype)
    kind = q.dtype.type
    pack(q, kind(scale * LOG2E), queries[: room * W], W)
    pack(dy, kind(1), grads[: room * W], W)
    dqueries[: room * W] = 0
    logs[:T] = lse
    for t in range(T):
        for j in range(d):
            means[t] += dy[t, j] * y[t, j]  # line 4: D = rowsum(dO O)
    for start in range(0, S, P):
        count = min(P, S - start)
        pack_columns(k[start : start + count], kind(1), columns)
        pack_columns(v[start : start + count], kind(1), value_columns)
        pack(k[start : start + count], kind(1), keys, W)
        dkeys[:] = 0
        dvalues[:] = 0
        for first in range(max(0, (start - S + T) // P * P), T, P):
            at, seen = first * W, S - T + first + 1 - start
            multiply(queries, at, W, 1, columns, 0, P, scores, 0, P, P, P, d, True)
            multiply(grads, at, W, 1, value_columns, 0, P, slopes, 0, P, P, P, d, True)
            probabilities(scores, slopes, seen, logs[first:], means[first:])
            multiply(scores, 0, 1, P, grads, at, W, dvalues, 0, W, P, W, P, False)
            multiply(slopes, 0, 1, P, queries, at, W, dkeys, 0, W, P, W, P, False)
            multiply(slopes, 0, P, 1, keys, 0, W, dqueries, at, W, P, W, P, False)
        for i in range(count):
            for j in range(d):
                dk[start + i, j] += dkeys[i * W + j] * kind(1 / LOG2E)
                dv[start + i, j] += dvalues[i * W + j]
    for t in range(T):
        for j in range(d):
            dq[t, j] = dqueries[t * W + j] * kind(scale)


@jit(parallel=True)
def backward(q, k, v, y, lse, dy, dq, dk, dv, spaces, scale):  # type: ignore[no-untyped-def]
    """Adjoint of `forward`; dk and dv begin as zeros."""
    K = k.shape[2]
    group = q.shape[2] // K
    for unit in numba.prange(q.shape[0] * K):
        b, n = unit // K, unit % K
        for h in range(n * group, (n + 1) * group):
            differentiate_head(
                q[b, :, h], k[b, :, n], v[b, :, n], y[b, :, h], lse[b, h], dy[b, :, h],
                scale, spaces[numba.get_thread_id()],
                dq[b, :, h], dk[b, :, n], dv[b, :, n],
            )  # fmt: skip


library = torch.library.Library("archbench", "FRAGMENT")
library.define("causal_attention(Tensor q, Tensor k, Tensor v) -> (Tensor, Tensor)")
library.define(
    "causal_attention_backward(Tensor q, Tensor k, Tensor v, Tensor y, Tensor lse, Tensor dy)"
    " -> (Tensor, Tensor, Tensor)"
)


def _spaces(q: Tensor, keys: int, *, backward: bool) -> Tensor:
    """A workspace for each thread: what `attend_head` and `differentiate_head` lay out."""
    length, width = q.shape[1], q.shape[3]
    padded = round_up(width, LANES)
    if backward:
        size = round_up(length, P) * 3 * padded + P * (3 * padded + 2 * width + 2 * P)
    else:
        size = round_up(keys, P) * 2 * padded + P * (width + padded + P)
    return q.new_empty(torch.get_num_threads(), size)


@torch.library.impl(library, "causal_attention", "CPU")
def _causal_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    q, k, v = (t.contiguous() for t in (q, k, v))
    y = torch.empty_like(q)
    lse = q.new_empty(q.shape[0], q.shape[2], q.shape[1])
    spaces = _spaces(q, k.shape[1], backward=False)
    run(forward, q, k, v, y, lse, spaces, numbers=(q.shape[3] ** -0.5,))
    return y, lse


@torch.library.register_fake("archbench::causal_attention", lib=library)
def _causal_attention_fake(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[0], q.shape[2], q.shape[1])


@torch.library.impl(library, "causal_attention_backward", "CPU")
def _causal_attention_backward(*given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, y, lse, dy = (t.contiguous() for t in given)
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    spaces = _spaces(q, k.shape[1], backward=True)
    run(backward, q, k, v, y, lse, dy, dq, dk, dv, spaces, numbers=(q.shape[3] ** -0.5,))
    return dq, dk, dv


@torch.library.register_fake("archbench::causal_attention_backward", lib=library)
def _causal_attention_backward_fake(*given: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in given[:3])


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return None, None, None
    grads: tuple[Tensor, ...] = torch.ops.archbench.causal_attention_backward(
        *ctx.saved_tensors, dy
    )
    return grads


register_gradient(library, "causal_attention", _gradients, _setup_context)


def attend_fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (B, H, T, d) over k and v (B, K, S, d), K a divisor of H: -> (B, H, T, d).

    Where heads lie side by side in memory, as a projection leaves them, nothing is copied.
    """
    inputs = (t.transpose(1, 2).contiguous() for t in (q, k, v))
    y: Tensor = torch.ops.archbench.causal_attention(*inputs)[0]
    return y.transpose(1, 2)


def warm() -> None:
    """Compile both kernels, or load them from numba's cache."""
    q, k, v = (torch.ones(1, 1, 2, 2, requires_grad=True) for _ in range(3))
    attend_fused(q, k, v).sum().backward()
