"""Attention of one token at batch 1 as one kernel (optional).

The arithmetic of `Attention.step` for one sequence without gradients, in fp32 or fp64: projections,
rotation, the new place of the cache, attention over what it holds; and the half of a block around
it, with its norm and its residual sum. The weights are read where they lie: nothing is packed, and
an update in place is seen.

Shapes: D width, H query heads, K key-value heads, d head width, C places of the cache.
"""

import numpy as np
import torch
from numba import prange
from torch import Tensor

from models.kernels.compiled import LOG2E, exp2, jit
from models.kernels.matvec import FEW, add_matvec, dot, matvec
from models.kernels.rms_norm import rms_norm
from models.kernels.views import Array, Pair


@jit
def turn(x, gain, eps, cos, sin, out):  # type: ignore[no-untyped-def]
    """Rotate pairs (x_i, x_{i+d/2}) of x (d), normalised first where there is a gain.

    `sin` carries the sign of `rotate_half`.
    """
    if gain.shape[0]:
        normed = np.empty_like(x)
        rms_norm(x, gain, eps, normed)
        x = normed
    half = x.shape[0] // 2
    for j in range(half):
        a, b = x[j], x[j + half]
        out[j] = a * cos[j] + b * sin[j]
        out[j + half] = b * cos[j + half] + a * sin[j + half]


@jit
def attend_head(query, keys, values, scores, out):  # type: ignore[no-untyped-def]
    """query (d) over keys and values (S, d) -> out (d); `scores` (S) is a workspace."""
    kind = query.dtype.type
    scale = kind(LOG2E) / np.sqrt(kind(query.shape[0]))
    largest, total = kind(-np.inf), kind(0)
    for place in range(keys.shape[0]):
        scores[place] = dot(keys[place], query) * scale
        largest = max(largest, scores[place])
    for place in range(keys.shape[0]):
        scores[place] = exp2(scores[place] - largest)
        total += scores[place]
    for j in range(out.shape[0]):
        out[j] = kind(0)
    for place in range(keys.shape[0]):
        weight, value = scores[place] / total, values[place]
        for j in range(out.shape[0]):
            out[j] += weight * value[j]


@jit
def attend_group(head, q, k, v, gains, eps, turns, cache, span, out):  # type: ignore[no-untyped-def]
    """Key-value head `head`: its key takes its place, and the queries that share it attend."""
    keys, values = cache[0][head], cache[1][head]
    start, stop = span
    d = keys.shape[1]
    shared = q.shape[0] // k.shape[0]
    turn(k[head * d : (head + 1) * d], gains[1], eps, turns[0], turns[1], keys[stop])
    values[stop] = v[head * d : (head + 1) * d]
    seen, seen_values = keys[start : stop + 1], values[start : stop + 1]
    scores, query = np.empty(stop + 1 - start, q.dtype), np.empty(d, q.dtype)
    for number in range(head * shared, (head + 1) * shared):
        lo, hi = number * d, (number + 1) * d
        turn(q[lo:hi], gains[0], eps, turns[0], turns[1], query)
        attend_head(query, seen, seen_values, scores, out[lo:hi])


@jit(parallel=True)
def attend_shared(q, k, v, gains, eps, turns, cache, span, out):  # type: ignore[no-untyped-def]
    """All key-value heads, shared out among the threads."""
    for head in prange(cache[0].shape[0]):
        attend_group(head, q, k, v, gains, eps, turns, cache, span, out)


@jit
def attention_step(h, weights, gains, eps, turns, cache, span, base, out):  # type: ignore[no-untyped-def]
    """base (D) + attention(h) of one position h (D) -> out (D).

    `weights` of query, key, value and output; `gains` (d) of the norms of queries and keys, or of
    length 0; cosines and signed sines (d) in `turns`; keys and values (K, C, d) in `cache`, where
    the token goes to place `stop` of `span` and sees those from `start` on.
    """
    W_q, W_k, W_v, W_o = weights
    q, k = np.empty(W_q.shape[0], h.dtype), np.empty(W_k.shape[0], h.dtype)
    v, y = np.empty_like(k), np.empty_like(q)
    matvec(W_q, h, q)
    matvec(W_k, h, k)
    matvec(W_v, h, v)
    if 2 * (span[1] + 1 - span[0]) * q.shape[0] < FEW:
        for head in range(cache[0].shape[0]):
            attend_group(head, q, k, v, gains, eps, turns, cache, span, y)
    else:
        attend_shared(q, k, v, gains, eps, turns, cache, span, y)
    add_matvec(base, W_o, y, out)


@jit
def attention_half(x, norm, norm_eps, weights, gains, eps, turns, cache, span, out):  # type: ignore[no-untyped-def]
    """x + attention(norm(x)), arguments as above."""
    h = np.empty_like(x)
    rms_norm(x, norm, norm_eps, h)
    attention_step(h, weights, gains, eps, turns, cache, span, x, out)


class FusedAttention:
    """Attention of one position on the parameters of a layer; the caller shares out the threads.

    `gains` are the weights of the query's and the key's norm, or none, and `eps` is theirs; `norm`
    is the weight and the epsilon of the norm before it, which `half` takes.
    """

    def __init__(
        self, projections: tuple[Tensor, Tensor, Tensor, Tensor],
        gains: tuple[Tensor, Tensor] | None, eps: float, norm: tuple[Tensor, float] | None = None,
    ) -> None:  # fmt: skip
        self.weights = tuple(w.detach().numpy() for w in projections)
        none = np.empty(0, self.weights[0].dtype)
        self.gains = (none, none) if gains is None else tuple(g.detach().numpy() for g in gains)
        self.eps = eps
        self.norm = None if norm is None else (norm[0].detach().numpy(), norm[1])

    def step(self, h: Array, turns: Pair, cache: Pair, span: tuple[int, int]) -> Array:
        """attention(h) of h (D), with `turns`, `cache` and `span` as the kernel has them: (D)."""
        out = np.zeros_like(h)
        attention_step(h, self.weights, self.gains, self.eps, turns, cache, span, out, out)
        return out

    def half(self, x: Array, turns: Pair, cache: Pair, span: tuple[int, int]) -> Array:
        """x + attention(norm(x)): (D)."""
        assert self.norm is not None
        out = np.empty_like(x)
        attention_half(x, *self.norm, self.weights, self.gains, self.eps, turns, cache, span, out)
        return out


def warm() -> None:
    """Compile all kernels, or load them from numba's cache."""
    one, eye, places = torch.ones(2), torch.eye(2), np.ones((1, 2, 2), np.float32)
    row = one.numpy()
    attention = FusedAttention((eye, eye, eye, eye), (one, one), 1e-6, (one, 1e-6))
    attention.half(row, (row, row), (places, places), (0, 1))
    attention.step(row, (row, row), (places, places), (0, 1))
