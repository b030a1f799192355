"""One token of Mamba-1 and Mamba-2 at batch 1, between the large projections (optional).

The arithmetic of `MambaMixer.step` and `Mamba2Mixer.step` for one sequence, without gradients, in
fp32 or fp64: one kernel between the in-projection and the out-projection, which torch shares out
among its threads. It reads the parameters where they lie and writes the new state over the old
one, which is consumed.

Shapes: D width, E channels, N state size, K convolution width, R rank of the step sizes; of
Mamba-2 H heads of P channels, G groups that share B and C.
"""

import numpy as np

from models.kernels.compiled import LOG2E, exp2, jit, sigmoid
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
def softplus(x):  # type: ignore[no-untyped-def]
    """log(1 + e^x), as torch has it: x itself beyond 20."""
    kind = type(x)
    return x if x > kind(20) else np.log1p(np.exp(x))


@jit
def mamba_step(taps, bias, x_proj, dt_proj, dt_bias, A_log, skip, uz, window, h, y):  # type: ignore[no-untyped-def]
    """Between the projections: `uz` (2E) -> `y` (E); h (E, N) is written over."""
    E, N = A_log.shape
    R = dt_proj.shape[1]
    kind = uz.dtype.type
    log2e = kind(LOG2E)
    u, z = uz[:E], uz[E:]
    convolve(u, taps, bias, window)
    selected = np.empty(R + 2 * N, uz.dtype)
    for i in range(R + 2 * N):
        total = kind(0)
        for e in range(E):
            total += x_proj[i, e] * u[e]
        selected[i] = total
    B, C = selected[R : R + N], selected[R + N :]
    decay = np.empty(N, uz.dtype)
    for e in range(E):
        total = dt_bias[e]
        for i in range(R):
            total += dt_proj[e, i] * selected[i]
        delta = softplus(total)
        state, rate, given, read = h[e], A_log[e], delta * u[e], kind(0)
        for n in range(N):
            decay[n] = exp2(-delta * log2e * exp2(rate[n] * log2e))
        for n in range(N):
            # Equations 2a, 2b: h = exp(delta A) h + delta B u, y = C h.
            value = decay[n] * state[n] + given * B[n]
            state[n] = value
            read += value * C[n]
        y[e] = (read + skip[e] * u[e]) * z[e] * sigmoid(z[e])


@jit
def mamba2_step(taps, bias, dt_bias, A_log, skip, gain, eps, zxbcdt, window, h, y):  # type: ignore[no-untyped-def]
    """Between the projections: z, x, B, C, dt in a row -> `y` (E); h (H, P, N) is written over."""
    H, P, N = h.shape
    E, shared = H * P, (window.shape[1] - H * P) // 2
    groups = shared // N
    kind = zxbcdt.dtype.type
    z, xBC, dt = zxbcdt[:E], zxbcdt[E : 2 * E + 2 * shared], zxbcdt[2 * E + 2 * shared :]
    convolve(xBC, taps, bias, window)
    for head in range(H):
        group = head // (H // groups)
        B = xBC[E + group * N : E + (group + 1) * N]
        C = xBC[E + shared + group * N : E + shared + (group + 1) * N]
        delta = softplus(dt[head] + dt_bias[head])
        decay = np.exp(-delta * np.exp(A_log[head]))
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
