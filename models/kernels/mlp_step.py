"""The position-wise half of a block for one token at batch 1 as one kernel (optional).

The arithmetic of `MLP` and `SparseMLP` with the norm before and the residual sum after them, for
one position without gradients, in fp32 or fp64.

Shapes: D width, F hidden width, E experts; shared experts are one network of their own width.
"""

import numpy as np
import torch
from torch import Tensor

from models.kernels.compiled import jit, sigmoid
from models.kernels.matvec import add_matvec, add_vecmat, matvec
from models.kernels.rms_norm import rms_norm
from models.kernels.views import Array


@jit
def square_positive(x):  # type: ignore[no-untyped-def]
    """max(x, 0)^2 in place."""
    for j in range(x.shape[0]):
        positive = max(x[j], x.dtype.type(0))
        x[j] = positive * positive


@jit
def gated(W_gate, W_up, h):  # type: ignore[no-untyped-def]
    """silu(W_gate h) * W_up h of h (D): (F)."""
    gate, up = np.empty(W_gate.shape[0], h.dtype), np.empty(W_gate.shape[0], h.dtype)
    matvec(W_gate, h, gate)
    matvec(W_up, h, up)
    for j in range(gate.shape[0]):
        gate[j] *= sigmoid(gate[j]) * up[j]
    return gate


@jit
def swiglu_half(x, norm, eps, weights, out):  # type: ignore[no-untyped-def]
    """x (D) + W_down (silu(W_gate h) * W_up h) with h = norm(x) -> out (D)."""
    W_gate, W_up, W_down = weights
    h = np.empty_like(x)
    rms_norm(x, norm, eps, h)
    add_matvec(x, W_down, gated(W_gate, W_up, h), out)


@jit
def relu2_half(x, norm, eps, weights, out):  # type: ignore[no-untyped-def]
    """x (D) + W_down max(W_up h, 0)^2 with h = norm(x) -> out (D)."""
    W_up, W_down = weights
    h, hidden = np.empty_like(x), np.empty(W_up.shape[0], x.dtype)
    rms_norm(x, norm, eps, h)
    matvec(W_up, h, hidden)
    square_positive(hidden)
    add_matvec(x, W_down, hidden, out)


@jit
def sparse_half(x, norm, eps, router, top_k, weights, shared, out):  # type: ignore[no-untyped-def]
    """x (D) + the gated sum of the experts that `router` (E, D) chooses for norm(x) -> out (D).

    `weights` of all experts below each other, (E F, D) each, the last one transposed; `shared` as
    those of `swiglu_half`, and without rows where there is no shared expert.
    """
    W_gate, W_up, W_down = weights
    experts, kind = router.shape[0], x.dtype.type
    F = W_gate.shape[0] // experts
    h, scores = np.empty_like(x), np.empty(experts, x.dtype)
    rms_norm(x, norm, eps, h)
    if shared[0].shape[0]:
        add_matvec(x, shared[2], gated(shared[0], shared[1], h), out)
    else:
        out[:] = x
    matvec(router, h, scores)
    # The softmax over all experts, renormalised over the chosen, is that over the chosen.
    chosen, gates, total = np.empty(top_k, np.int64), np.empty(top_k, x.dtype), kind(0)
    for n in range(top_k):
        best = -1
        for e in range(experts):
            free = True
            for m in range(n):
                free &= chosen[m] != e
            if free and (best < 0 or scores[e] > scores[best]):
                best = e
        chosen[n] = best
        gates[n] = np.exp(scores[best] - scores[chosen[0]])
        total += gates[n]
    for n in range(top_k):
        lo, hi = chosen[n] * F, (chosen[n] + 1) * F
        hidden = gated(W_gate[lo:hi], W_up[lo:hi], h)
        add_vecmat(gates[n] / total, hidden, W_down[lo:hi], out)


class FusedMLP:
    """x + mlp(norm(x)) of one position; the caller shares out the threads.

    `weights` are those of gate, up and down, or without the gate of a squared ReLU.
    """

    def __init__(self, norm: Tensor, eps: float, weights: tuple[Tensor, ...]) -> None:
        self.norm, self.eps = norm.detach().numpy(), eps
        self.weights = tuple(w.detach().numpy() for w in weights)

    def __call__(self, x: Array) -> Array:
        """(D) -> (D)."""
        out = np.empty_like(x)
        half = swiglu_half if len(self.weights) == 3 else relu2_half
        half(x, self.norm, self.eps, self.weights, out)
        return out


class FusedExperts:
    """x + experts(norm(x)) of one position; the caller shares out the threads.

    `weights` of all experts and, where there is one, of the `shared` expert: gate, up and down.
    """

    def __init__(
        self, norm: Tensor, eps: float, router: Tensor, top_k: int, weights: tuple[Tensor, ...],
        shared: tuple[Tensor, ...],
    ) -> None:  # fmt: skip
        shared = shared or (norm.new_empty(0, norm.shape[0]),) * 3
        self.norm, self.eps, self.top_k = norm.detach().numpy(), eps, top_k
        self.router = router.detach().numpy()
        self.weights, self.shared = (
            tuple(w.detach().numpy() for w in group) for group in (weights, shared)
        )

    def __call__(self, x: Array) -> Array:
        """(D) -> (D)."""
        out = np.empty_like(x)
        sparse_half(x, self.norm, self.eps, self.router, self.top_k, self.weights, self.shared, out)
        return out


def warm() -> None:
    """Compile all kernels, or load them from numba's cache."""
    one, eye = torch.ones(2), torch.eye(2)
    row = one.numpy()
    FusedMLP(one, 1e-6, (eye, eye, eye))(row)
    FusedMLP(one, 1e-6, (eye, eye))(row)
    FusedExperts(one, 1e-6, eye, 1, (eye, eye, eye), (eye, eye, eye))(row)
