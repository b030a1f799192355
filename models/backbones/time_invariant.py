"""The state space model of Mamba without selection: S4 with a real diagonal, as a convolution.

"Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv:2312.00752, algorithm 1
and equations 2 and 3; A as in S4D-Real ("On the Parameterization and Initialization of Diagonal
State Space Models", arXiv:2206.11893). Step sizes, B and C are the same at every step, so that
with a = exp(delta A) every channel is a convolution

    y = u * K + D u,    K_t = sum_n C_n a_n^t delta B_n,

which an FFT computes in T log T. What a first state h adds is C a^{t+1} h.

As in the selective scan B is discretised by Euler's rule (delta B), and a may be
2 exp(delta A) - 1. Powers are products of two, a^{qR + r} = a^{qR} a^r with R about sqrt(T), so
that nothing of size T E N is held.

Shapes: B batch, T time, E channels, N state size; R low powers, Q high ones.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbones.selective_scan import decay


def time_invariant_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    state: Tensor | None,
    negative: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """As `selective_scan_reference`, of parameters that do not depend on time.

    u and z (B, T, E), delta and D (E), A, B and C (E, N), state (B, E, N) or None for zeros
    -> gated output (B, T, E), and where there was a state the last one (B, E, N).
    """
    length = u.shape[1]
    a = decay(delta.unsqueeze(-1) * A, negative)  # (E, N)
    low = _powers(a, math.isqrt(length - 1) + 1)  # (R, E, N)
    R = len(low)
    high = _powers(low[-1] * a, -(-length // R))  # (Q, E, N)
    fed = delta.unsqueeze(-1) * B  # (E, N)
    y = convolve(u, torch.einsum("qen,ren->qre", high * (C * fed), low).flatten(0, 1)[:length])
    last = None
    if state is not None:
        seen = high * (C * a * state).unsqueeze(1)  # (B, Q, E, N)
        y = y + torch.einsum("bqen,ren->bqre", seen, low).flatten(1, 2)[:, :length]
        # sum_t a^{T-1-t} u_t, the sequence padded in front to Q R steps.
        inputs = F.pad(u, (0, 0, len(high) * R - length, 0)).unflatten(1, (-1, R))  # (B, Q, R, E)
        parts = torch.einsum("bqre,ren->bqen", inputs, low.flip(0))
        through = high[(length - 1) // R] * low[(length - 1) % R] * a  # a^T
        last = through * state + fed * (parts * high.flip(0)).sum(1)
    return (y + D * u) * F.silu(z), last


def _powers(a: Tensor, count: int) -> Tensor:
    """a^0 to a^(count - 1), as products: one of a negative number has no logarithm."""
    return torch.cat([torch.ones_like(a)[None], a.expand(count - 1, *a.shape)]).cumprod(0)


def _points(length: int) -> int:
    """Of the transforms: a power of two, and twice the length, so that nothing comes around."""
    return 1 << (2 * length - 1).bit_length()


def convolve(u: Tensor, K: Tensor) -> Tensor:
    """Causal, (B, T, E) with (T, E)."""
    length, points = u.shape[1], _points(u.shape[1])
    spectrum = torch.fft.rfft(u, n=points, dim=1) * torch.fft.rfft(K, n=points, dim=0)
    return torch.fft.irfft(spectrum, n=points, dim=1)[:, :length]


def fft_flops(batch: int, length: int, channels: int, states: int) -> int:
    """Of `time_invariant_scan` without a state, skip and gate left out.

    A real transform of n numbers takes 2.5 n log2 n. Every channel of an item has two of them and a
    product of complex numbers (6) for every frequency; that of K is one whatever the batch, and so
    are K's own sums over states, 2 a step and state.
    """
    points = _points(length)
    transform = round(2.5 * points * math.log2(points))
    item = 2 * transform + 6 * (points // 2 + 1)
    return channels * (batch * item + transform + 2 * length * states)
