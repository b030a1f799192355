"""One token of RWKV-7 at batch 1, a block as one kernel (optional).

The arithmetic of `models.backbones.rwkv7.Block` for B = T = 1, without gradients, in fp32 or fp64.
At that size a step is bound by the number of calls and by reading the weights. They are read where
they lie: nothing is packed, and an update in place is seen. The new state is written over the old
one, which is consumed.

Shapes: D width, H heads, N head size, R a low-rank network's inner width, F hidden width.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from models.kernels.compiled import LOG2E, exp2, jit, sigmoid
from models.kernels.matvec import add_matvec, matvec
from models.kernels.mlp_step import square_positive
from models.kernels.views import Array

TANH, SIGMOID, LINEAR = 0, 1, 2


class Weights(NamedTuple):
    """One block's parameters, as arrays on their memory."""

    enter: tuple[Any, ...]  # ln1 and the six shares of the token shift
    projections: tuple[Array, Array, Array, Array]  # receptance, key, value, output: (D, D)
    mix: tuple[Any, ...]  # what `mix` takes of them
    enter_ffn: tuple[Any, ...]
    ffn: tuple[Array, Array]  # key (F, D), value (D, F)


@jit
def normed(x, gain, bias, eps):  # type: ignore[no-untyped-def]
    """Layer norm of x (D)."""
    D = x.shape[0]
    mean, square = x.dtype.type(0), x.dtype.type(0)
    for j in range(D):
        mean += x[j]
    mean /= D
    for j in range(D):
        square += (x[j] - mean) * (x[j] - mean)
    scale = x.dtype.type(1) / np.sqrt(square / D + eps)
    out = np.empty_like(x)
    for j in range(D):
        out[j] = (x[j] - mean) * scale * gain[j] + bias[j]
    return out


@jit
def shift(h, last, mu, out):  # type: ignore[no-untyped-def]
    """lerp(h, last, mu), all (D)."""
    for j in range(h.shape[0]):
        out[j] = h[j] + mu[j] * (last[j] - h[j])


@jit
def enter(gain, bias, eps, r, k, v, w, a, g, x, last, mixed):  # type: ignore[no-untyped-def]
    """The norm of x (D), and its six token shifts (6, D); `last` becomes the norm."""
    h = normed(x, gain, bias, eps)
    shift(h, last, r, mixed[0])
    shift(h, last, k, mixed[1])
    shift(h, last, v, mixed[2])
    shift(h, last, w, mixed[3])
    shift(h, last, a, mixed[4])
    shift(h, last, g, mixed[5])
    last[:] = h


@jit
def enter_ffn(gain, bias, eps, k, x, last, mixed):  # type: ignore[no-untyped-def]
    """The same for the channel mix, whose one shift is (D)."""
    h = normed(x, gain, bias, eps)
    shift(h, last, k, mixed)
    last[:] = h


@jit
def low_rank(x, first, second, kind, hidden, out):  # type: ignore[no-untyped-def]
    """out += f(x first) second, with x (D), first (D, R), second (R, D)."""
    D, R = first.shape
    for i in range(R):
        hidden[i] = x.dtype.type(0)
    for j in range(D):
        for i in range(R):
            hidden[i] += x[j] * first[j, i]
    two, one = x.dtype.type(2), x.dtype.type(1)
    for i in range(R):
        if kind == TANH:
            hidden[i] = two * sigmoid(two * hidden[i]) - one
        elif kind == SIGMOID:
            hidden[i] = sigmoid(hidden[i])
    for i in range(R):
        for j in range(D):
            out[j] += hidden[i] * second[i, j]


@jit
def mix(weights, r, k, v, mixed, v_first, S, out):  # type: ignore[no-untyped-def]
    """Between the projections r, k, v (D) and the output: gates, recurrence, norm, bonus.

    `mixed` (6, D) are the shifted inputs in the order r k v w a g; without v1's columns this is
    block 0, whose values `v_first` becomes. S (H, N, N) is written over, `out` (D) is the result.
    """
    (w0, w1, w2, a0, a1, a2, v0, v1, v2, g1, g2, k_k, k_a, r_k, gain, bias, eps,
     log_decay, reach) = weights  # fmt: skip
    D = r.shape[0]
    H, N = S.shape[0], S.shape[1]
    kind = r.dtype.type
    zero, one, tiny = kind(0), kind(1), kind(1e-12)
    space = np.zeros((6, D), r.dtype)
    hidden = np.zeros(w1.shape[1] + a1.shape[1] + v1.shape[1] + g1.shape[1], r.dtype)
    w, a, g, kk, removal, key = space[0], space[1], space[2], space[3], space[4], space[5]
    w[:], a[:] = w0, a0
    low_rank(mixed[3], w1, w2, TANH, hidden, w)
    low_rank(mixed[4], a1, a2, LINEAR, hidden, a)
    low_rank(mixed[5], g1, g2, SIGMOID, hidden, g)
    if v1.shape[1]:
        gate = v0.copy()
        low_rank(mixed[2], v1, v2, LINEAR, hidden, gate)
        for j in range(D):
            v[j] += sigmoid(gate[j]) * (v_first[j] - v[j])
    else:
        v_first[:] = v
    for j in range(D):
        # w_t = exp(-exp(-1/2) sigmoid(...)), kappa-hat before its norm, k-tilde = k lerp(1, a, k_a)
        w[j] = exp2(log_decay * kind(LOG2E) * sigmoid(w[j]))
        a[j] = sigmoid(a[j])
        kk[j] = k[j] * k_k[j]
        key[j] = k[j] * (one + (a[j] - one) * k_a[j])
    for h in range(H):
        lo, hi = h * N, (h + 1) * N
        square, bonus = zero, zero
        for j in range(lo, hi):
            square += kk[j] * kk[j]
            bonus += r[j] * key[j] * r_k[h, j - lo]
        scale = one / max(np.sqrt(square), tiny)
        for j in range(lo, hi):
            kk[j] *= scale
            removal[j] = kk[j] * a[j] * (one + reach * w[j])
        w_, kk_, removal_, key_, r_ = w[lo:hi], kk[lo:hi], removal[lo:hi], key[lo:hi], r[lo:hi]
        mean, square = zero, zero
        for i in range(N):
            row, held, read = S[h, i], zero, zero
            for j in range(N):
                held += row[j] * kk_[j]
            vi = v[lo + i]
            for j in range(N):
                # S_t = S_{t-1} (diag(w_t) - kappa-hat (kappa-hat a)^T) + v_t k_t^T, o_t = S_t r_t
                s = row[j] * w_[j] - held * removal_[j] + vi * key_[j]
                row[j] = s
                read += s * r_[j]
            out[lo + i] = read
            mean += read
        mean /= N
        for i in range(lo, hi):
            square += (out[i] - mean) * (out[i] - mean)
        scale = one / np.sqrt(square / N + eps)
        for i in range(lo, hi):
            normed = (out[i] - mean) * scale * gain[i] + bias[i]
            out[i] = (normed + bonus * v[i]) * g[i]


@jit
def block_kernel(  # type: ignore[no-untyped-def]
    enter_of, projections, mix_of, enter_ffn_of, ffn, x, v_first, att_last, S, ffn_last, out
):
    """x (D) -> out (D); the state is written over, and in block 0 the values that others mix with.

    The first five arguments are `Weights`.
    """
    W_r, W_k, W_v, W_o = projections
    ffn_key, ffn_value = ffn
    D, kind = x.shape[0], x.dtype
    mixed, hidden = np.empty((6, D), kind), np.empty(ffn_key.shape[0], kind)
    r, k, v, y = np.empty(D, kind), np.empty(D, kind), np.empty(D, kind), np.empty(D, kind)
    enter(*enter_of, x, att_last, mixed)
    matvec(W_r, mixed[0], r)
    matvec(W_k, mixed[1], k)
    matvec(W_v, mixed[2], v)
    mix(mix_of, r, k, v, mixed, v_first, S, y)
    add_matvec(x, W_o, y, out)
    enter_ffn(*enter_ffn_of, out, ffn_last, y)
    matvec(ffn_key, y, hidden)
    square_positive(hidden)
    add_matvec(out, ffn_value, hidden, out)


def weights_of(
    named: Mapping[str, Tensor], *, eps: float, eps_x: float, log_decay: float, reach: float
) -> Weights:
    """One block's, by their official names, contiguous as they are kept.

    `reach` is 1 where transitions have eigenvalues of -1 too (`TimeMix`), else 0.
    """
    kind = named["att.a0"].detach().numpy().dtype.type

    def array(name: str) -> Any:
        x = named[name].detach().numpy()
        return x.reshape(-1) if x.ndim == 3 else x

    D = named["att.a0"].numel()
    none = {"v0": np.zeros(D, kind), "v1": np.zeros((D, 0), kind), "v2": np.zeros((0, D), kind)}
    names = ("w0", "w1", "w2", "a0", "a1", "a2", "v0", "v1", "v2", "g1", "g2", "k_k", "k_a", "r_k")
    first = "att.v1" not in named
    parts = [none[n] if first and n in none else array(f"att.{n}") for n in names]
    shares = [array(f"att.x_{n}") for n in "rkvwag"]

    def matrices(*names: str) -> tuple[Any, ...]:
        return tuple(array(f"{name}.weight") for name in names)

    return Weights(
        (*matrices("ln1"), array("ln1.bias"), kind(eps), *shares),
        matrices("att.receptance", "att.key", "att.value", "att.output"),
        (
            *parts,
            *matrices("att.ln_x"),
            array("att.ln_x.bias"),
            kind(eps_x),
            kind(log_decay),
            kind(reach),
        ),
        (*matrices("ln2"), array("ln2.bias"), kind(eps), array("ffn.x_k")),
        matrices("ffn.key", "ffn.value"),
    )


def block_step(
    weights: Weights, x: Array, v_first: Array, att_last: Tensor, S: Tensor, ffn_last: Tensor
) -> Array:
    """(D) -> (D), as the kernel has it; the caller shares out the threads."""
    out = np.empty_like(x)
    block_kernel(*weights, x, v_first, att_last.numpy(), S.numpy(), ffn_last.numpy(), out)
    return out
