"""The selective scan of Mamba-1 in torch: plain reference, loop and chunked forms.

Paper: "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv:2312.00752, whose
equation 2a with the discretisation of section 3.2 is

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t        (zero-order hold for A, Euler for B)
    y_t = C_t h_t + D u_t,   then gated by silu(z_t)

With eigenvalues in [-1, 1] the factor of h_{t-1} is 2 exp(delta_t A) - 1 ("Unlocking State-Tracking
in Linear RNNs Through Negative Eigenvalues", arXiv:2411.12537), here called `negative`.

Symbols: u input, delta step size, A, B, C, D state matrices, z gate, h state: the paper's.
Reference implementation: `selective_scan_ref` of mamba_ssm. Deviation: time is the first axis of
the large tensors, so that one step of the recurrence touches contiguous memory.

Shapes: B batch, T time, E channels (d_inner), N state size, K steps of a chunk.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

# h_t = a_t h_{t-1} + x_t over the first axis, in place on x, which starts from its own x_0.
Recurrence = Callable[[Tensor, Tensor], None]


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    state: Tensor | None,
    negative: bool = False,
) -> tuple[Tensor, Tensor]:
    """Plain recurrence, symbol by symbol.

    u, delta, z (B, T, E), A (E, N), B and C (B, T, N), D (E), state (B, E, N) or zeros
    -> gated output (B, T, E) and the last state (B, E, N).
    """
    h = u.new_zeros(u.shape[0], *A.shape) if state is None else state
    outputs = []
    for t in range(u.shape[1]):
        # Section 3.2: A-bar = exp(delta A), B-bar ≈ delta B.
        a = decay(delta[:, t, :, None] * A, negative)  # (B, E, N)
        # Equation 2a: h_t = A-bar h_{t-1} + B-bar u_t.
        h = a * h + (delta[:, t] * u[:, t]).unsqueeze(-1) * B[:, t, None]  # (B, E, N)
        # Equation 2b: y_t = C h_t, with the skip D u_t.
        y = (h * C[:, t, None]).sum(-1) + D * u[:, t]  # (B, E)
        outputs.append(y * F.silu(z[:, t]))
    return torch.stack(outputs, dim=1), h


def decay(log: Tensor, negative: bool) -> Tensor:
    """The factor of the last state: e^log in (0, 1), or twice that less one in (-1, 1)."""
    a = torch.exp(log)
    return 2 * a - 1 if negative else a


def recurrence_loop(a: Tensor, x: Tensor) -> None:
    """h_t = a_t h_{t-1} + x_t, a step at a time, in place on x; (T, ...)."""
    steps, decays = x.unbind(0), a.unbind(0)
    for t in range(1, len(steps)):
        steps[t].addcmul_(decays[t], steps[t - 1])


def recurrence_chunked(a: Tensor, x: Tensor) -> None:
    """The same in about 2 sqrt(T) steps: all chunks side by side, then the carries; a is consumed.

    Inside a chunk h_t = (prod a) h_start + (the chunk's own h), where both are a recurrence.
    """
    length = x.shape[0]
    size = max(1, round(length**0.5))
    whole = length // size * size
    shape = (whole // size, size, *x.shape[1:])
    xs, decays = x[:whole].view(shape), a[:whole].view(shape)  # (T/K, K, ...)
    for k in range(1, size):
        xs[:, k].addcmul_(decays[:, k], xs[:, k - 1])
        decays[:, k].mul_(decays[:, k - 1])
    for c in range(1, shape[0]):
        xs[c].addcmul_(decays[c], xs[c - 1, -1])
    for t in range(max(whole, 1), length):
        x[t].addcmul_(a[t], x[t - 1])


class _SelectiveScan(torch.autograd.Function):
    """The ungated scan with all states in one buffer; the backward is the same recurrence reversed.

    The states h are kept, the decays a recomputed: they are one exponential away.
    """

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        state: Tensor,
        recurrence: Recurrence,
        negative: bool,
    ) -> tuple[Tensor, Tensor]:
        # Time first: (T, B, E, N) for a and h.
        a = decay(delta.transpose(0, 1).unsqueeze(-1) * A, negative)  # (T, B, E, N)
        h = (delta * u).transpose(0, 1).unsqueeze(-1) * B.transpose(0, 1).unsqueeze(2)
        h[0].addcmul_(a[0], state)
        recurrence(a, h)
        y = torch.matmul(h, C.transpose(0, 1).unsqueeze(-1)).squeeze(-1)  # (T, B, E)
        ctx.save_for_backward(u, delta, A, B, C, state, h)
        ctx.recurrence, ctx.negative = recurrence, negative
        return y.transpose(0, 1).contiguous(), h[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, state, h = ctx.saved_tensors
        dy, dlast = grads[0].transpose(0, 1), grads[1]  # (T, B, E), (B, E, N)
        delta_t, u_t = delta.transpose(0, 1), u.transpose(0, 1)  # (T, B, E)
        B_t, C_t = B.transpose(0, 1), C.transpose(0, 1)  # (T, B, N)
        a = decay(delta_t.unsqueeze(-1) * A, ctx.negative)  # (T, B, E, N)
        # Adjoint: g_t = dL/dh_t = C_t dy_t + a_{t+1} g_{t+1}. Reversed in time it is a recurrence
        # forward in time; the flipped copies are what the in-place form runs on.
        g = (dy.unsqueeze(-1) * C_t.unsqueeze(2)).flip(0)  # (T, B, E, N)
        g[0] += dlast
        shifted = torch.empty_like(a)
        shifted[0] = 0
        shifted[1:] = a[1:].flip(0)
        ctx.recurrence(shifted, g)
        g = g.flip(0)
        dC = torch.matmul(dy.unsqueeze(2), h).squeeze(2).transpose(0, 1)  # (B, T, N)
        dB = torch.matmul((delta_t * u_t).unsqueeze(2), g).squeeze(2).transpose(0, 1)  # (B, T, N)
        dinput = torch.matmul(g, B_t.unsqueeze(-1)).squeeze(-1)  # d(delta u), (T, B, E)
        # a = exp(delta A): through it, dL/d(delta A)_t = g_t a_t h_{t-1}; or a + 1 in its place.
        dstate = a[0] * g[0]  # (B, E, N)
        g *= a + 1 if ctx.negative else a
        g[0] *= state
        g[1:] *= h[:-1]
        ddelta = dinput * u_t + (g * A).sum(-1)
        dA = torch.einsum("tben,tbe->en", g, delta_t)
        du = (dinput * delta_t).transpose(0, 1)
        return du, ddelta.transpose(0, 1), dA, dB, dC, dstate, None, None


def selective_scan_torch(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    state: Tensor | None,
    recurrence: Recurrence,
    negative: bool = False,
) -> tuple[Tensor, Tensor]:
    """As `selective_scan_reference`, all steps in one buffer, by the given recurrence."""
    if state is None:
        state = u.new_zeros(u.shape[0], *A.shape)
    y, last = cast(
        tuple[Tensor, Tensor], _SelectiveScan.apply(u, delta, A, B, C, state, recurrence, negative)
    )
    return (y + D * u) * F.silu(z), last
