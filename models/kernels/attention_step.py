"""One token of a Transformer's block at batch 1, between its projections, fused (optional).

The arithmetic of `Block.step` for one sequence without gradients, in fp32 or fp64: the norms, the
rotation, the new place of the cache, attention over what it holds, the gated unit. One thread does
it, so it is for contexts that a core reads in the time of a few operators of torch.

Shapes: H query heads, K key-value heads, d head width, C places of the cache.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.kernels.compiled import LOG2E, exp2, jit, sigmoid
from models.kernels.rms_norm import rms_norm


@jit
def turn(x, cos, sin, out):  # type: ignore[no-untyped-def]
    """Rotate pairs (x_i, x_{i+d/2}); `sin` carries the sign of `rotate_half`."""
    half = x.shape[0] // 2
    for j in range(half):
        a, b = x[j], x[j + half]
        out[j] = a * cos[j] + b * sin[j]
        out[j + half] = b * cos[j + half] + a * sin[j + half]


@jit
def attend_step(  # type: ignore[no-untyped-def]
    q, k, v, q_gain, k_gain, eps, cos, sin, keys, values, start, stop, out
):
    """q (H d), k and v (K d) -> out (H d). The key goes to place `stop` of keys (K, C, d), and
    places start..stop are seen. Without gains (of length 0) nothing is normalised.
    """
    K, d = keys.shape[0], keys.shape[2]
    H = q.shape[0] // d
    kind = q.dtype.type
    scale = kind(LOG2E) / np.sqrt(kind(d))
    normed, query = np.empty(d, q.dtype), np.empty(d, q.dtype)
    scores = np.empty(stop + 1 - start, q.dtype)
    for head in range(K):
        row = k[head * d : (head + 1) * d]
        if k_gain.shape[0]:
            rms_norm(row, k_gain, eps, normed)
            row = normed
        turn(row, cos, sin, keys[head, stop])
        values[head, stop] = v[head * d : (head + 1) * d]
    for head in range(H):
        row, shared = q[head * d : (head + 1) * d], head // (H // K)
        if q_gain.shape[0]:
            rms_norm(row, q_gain, eps, normed)
            row = normed
        turn(row, cos, sin, query)
        largest, total = kind(-np.inf), kind(0)
        for place in range(start, stop + 1):
            key, score = keys[shared, place], kind(0)
            for j in range(d):
                score += query[j] * key[j]
            score *= scale
            scores[place - start] = score
            largest = max(largest, score)
        for n in range(scores.shape[0]):
            scores[n] = exp2(scores[n] - largest)
            total += scores[n]
        part = out[head * d : (head + 1) * d]
        for j in range(d):
            part[j] = kind(0)
        for place in range(start, stop + 1):
            weight, value = scores[place - start] / total, values[shared, place]
            for j in range(d):
                part[j] += weight * value[j]


@jit
def silu_times(gate, up):  # type: ignore[no-untyped-def]
    """silu(gate) * up, in the place of `gate`."""
    for j in range(gate.shape[0]):
        gate[j] *= sigmoid(gate[j]) * up[j]


class FusedAttention:
    """x + attention(norm(x)) of one position, on the parameters of a block and on room of its own.

    `gains` are the weights of the query's and the key's norm, or none. The projections stay
    torch's, which shares them out among its threads.
    """

    def __init__(
        self, norm: Tensor, projections: tuple[Tensor, Tensor, Tensor, Tensor],
        gains: tuple[Tensor, Tensor] | None, eps: float,
    ) -> None:  # fmt: skip
        self.query, self.key, self.value, self.output = (w.detach() for w in projections)
        self.norm, self.eps = norm.detach().numpy(), eps
        none = np.empty(0, self.norm.dtype)
        self.gains = (none, none) if gains is None else tuple(g.detach().numpy() for g in gains)
        rows = (self.query.shape[0], self.key.shape[0], self.key.shape[0], self.query.shape[0])
        self.q, self.k, self.v, self.y = (norm.new_empty(n).detach() for n in rows)
        self.h = torch.empty_like(norm).detach()
        self.read = tuple(t.numpy() for t in (self.q, self.k, self.v))
        self.h_, self.y_ = self.h.numpy(), self.y.numpy()

    def __call__(
        self, x: Tensor, turn: tuple[Any, ...], cache: tuple[Tensor, Tensor], start: int, stop: int
    ) -> Tensor:
        """x (D), cos and sin in `turn` (d), keys and values (1, K, C, d) -> (D)."""
        rms_norm(x.numpy(), self.norm, self.eps, self.h_)
        torch.mv(self.query, self.h, out=self.q)
        torch.mv(self.key, self.h, out=self.k)
        torch.mv(self.value, self.h, out=self.v)
        keys, values = (t.numpy()[0] for t in cache)
        attend_step(*self.read, *self.gains, self.eps, *turn, keys, values, start, stop, self.y_)
        return torch.addmv(x, self.output, self.y)


class FusedMLP:
    """x + W_down (silu(W_gate h) * W_up h) with h = norm(x), of one position."""

    def __init__(self, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor, eps: float) -> None:
        self.gate, self.up, self.down = (w.detach() for w in (gate, up, down))
        self.norm, self.eps = norm.detach().numpy(), eps
        self.h = torch.empty_like(norm).detach()
        self.g, self.u = (norm.new_empty(gate.shape[0]).detach() for _ in range(2))
        self.h_, self.g_, self.u_ = (t.numpy() for t in (self.h, self.g, self.u))

    def __call__(self, x: Tensor) -> Tensor:
        """(D) -> (D)."""
        rms_norm(x.numpy(), self.norm, self.eps, self.h_)
        torch.mv(self.gate, self.h, out=self.g)
        torch.mv(self.up, self.h, out=self.u)
        silu_times(self.g_, self.u_)
        return torch.addmv(x, self.down, self.g)


def warm() -> None:
    """Compile all kernels, or load them from numba's cache."""
    one, eye, cache = torch.ones(2), torch.eye(2), torch.ones(1, 1, 2, 2)
    attention = FusedAttention(one, (eye, eye, eye, eye), (one, one), 1e-6)
    attention(one, (one.numpy(), one.numpy()), (cache, cache), 0, 1)
    FusedMLP(one, eye, eye, eye, 1e-6)(one)
