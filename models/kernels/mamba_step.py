"""One token of Mamba-1 and Mamba-2 at batch 1, a mixer as one kernel (optional).

The arithmetic of `MambaMixer.step` and `Mamba2Mixer.step` for one sequence, without gradients, in
fp32 or fp64. The parameters are read where they lie, and the new state is written over the old one,
which is consumed.

Shapes: D width, E channels, N state size, K convolution width, R rank of the step sizes; of
Mamba-2 H heads of P channels, G groups that share B and C.
"""

import numpy as np

from models.kernels.compiled import LOG2E, exp2, jit, sigmoid, softplus
from models.kernels.matvec import matvec
from models.kernels.rms_norm import rms_norm


@jit
def convolve(x, taps, bias, window):  # type: ignore[no-untyped-def]
    """SiLU of the causal convolution, in place; x (C), taps (C, K), window (K - 1, C) moves on."""
    before = window.shape[0]
    for e in range(x.shape[0]):
        total = bias[e] + taps[e, before] * x[e]
        for k in range(before):
            total += taps[e, k] * window[k, e]
        for k in range(before - 1):
            window[k, e] = window[k + 1, e]
        window[before - 1, e] = x[e]
        x[e] = total * sigmoid(total)


@jit
def mamba_step(weights, negative, x, window, h, out):  # type: ignore[no-untyped-def]
    """x (D) -> `out` (D); window (K - 1, E) and h (E, N) are written over.

    Where decays may be `negative` they are 2 exp(delta A) - 1.
    """
    in_proj, taps, bias, x_proj, dt_proj, dt_bias, A_log, skip, out_proj = weights
    E, N = A_log.shape
    R = dt_proj.shape[1]
    kind = x.dtype.type
    log2e = kind(LOG2E)
    stretch, shift = (kind(2), kind(1)) if negative else (kind(1), kind(0))
    uz, y = np.empty(2 * E, x.dtype), np.empty(E, x.dtype)
    matvec(in_proj, x, uz)
    u, z = uz[:E], uz[E:]
    convolve(u, taps, bias, window)
    selected = np.empty(R + 2 * N, x.dtype)
    matvec(x_proj, u, selected)
    B, C = selected[R : R + N], selected[R + N :]
    decay = np.empty(N, x.dtype)
    for e in range(E):
        total = dt_bias[e]
        for i in range(R):
            total += dt_proj[e, i] * selected[i]
        delta = softplus(total)
        state, rate, given, read = h[e], A_log[e], delta * u[e], kind(0)
        for n in range(N):
            decay[n] = stretch * exp2(-delta * log2e * exp2(rate[n] * log2e)) - shift
        for n in range(N):
            # Equations 2a, 2b: h = decay h + delta B u, y = C h.
            value = decay[n] * state[n] + given * B[n]
            state[n] = value
            read += value * C[n]
        y[e] = (read + skip[e] * u[e]) * z[e] * sigmoid(z[e])
    matvec(out_proj, y, out)


@jit
def mamba2_step(weights, eps, negative, x, window, h, out):  # type: ignore[no-untyped-def]
    """x (D) -> `out` (D); window (K - 1, E + 2GN) and h (H, P, N) are written over."""
    in_proj, taps, bias, dt_bias, A_log, skip, gain, out_proj = weights
    H, P, N = h.shape
    E, shared = H * P, (window.shape[1] - H * P) // 2
    groups = shared // N
    kind = x.dtype.type
    zxbcdt, y = np.empty(in_proj.shape[0], x.dtype), np.empty(E, x.dtype)
    matvec(in_proj, x, zxbcdt)
    z, xBC, dt = zxbcdt[:E], zxbcdt[E : 2 * E + 2 * shared], zxbcdt[2 * E + 2 * shared :]
    convolve(xBC, taps, bias, window)
    for head in range(H):
        group = head // (H // groups)
        B = xBC[E + group * N : E + (group + 1) * N]
        C = xBC[E + shared + group * N : E + shared + (group + 1) * N]
        delta = softplus(dt[head] + dt_bias[head])
        decay = np.exp(-delta * np.exp(A_log[head]))
        if negative:
            decay = decay + (decay - kind(1))
        for p in range(P):
            e = head * P + p
            state, given, read = h[head, p], delta * xBC[e], kind(0)
            for n in range(N):
                value = decay * state[n] + given * B[n]
                state[n] = value
                read += value * C[n]
            y[e] = (read + skip[head] * xBC[e]) * z[e] * sigmoid(z[e])
    # The gated norm, over each group of channels by itself.
    width = E // groups
    for group in range(groups):
        part = y[group * width : (group + 1) * width]
        rms_norm(part, gain[group * width : (group + 1) * width], eps, part)
    matvec(out_proj, y, out)
