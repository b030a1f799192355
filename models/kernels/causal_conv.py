"""The causal convolution of the Mambas with its SiLU as a fused CPU kernel (optional).

The same function as `causal_conv_reference` of models/backbones/causal_conv.py, in fp32 or fp64.
Every input is read from memory once and from the cache for each tap; what the backward needs of the
forward is computed again, so that only the input is kept. The work is cut by batch item and by
blocks of channels.

Shapes: B batch, T time, C channels, K kernel width, S channel blocks.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from models.kernels.compiled import blocks_of, jit, run, sigmoid
from models.kernels.operators import register_gradient

BLOCK = 256  # channels of one work item
# Rows of the workspace: the convolution before SiLU, its gradient, and that of the bias.
SUM, DSUM, DBIAS = range(3)


@jit
def convolve(x, taps, bias, window, space, b, t, lo, width):  # type: ignore[no-untyped-def]
    """b + sum_k w_k x_{t-K+1+k} into the row SUM; before the first input stands the window."""
    K = taps.shape[0]
    for e in range(width):
        space[SUM, e] = bias[lo + e]
    for k in range(K):
        at = t - K + 1 + k
        row = x[b, at, lo : lo + width] if at >= 0 else window[b, K - 1 + at, lo : lo + width]
        tap = taps[k, lo : lo + width]
        for e in range(width):
            space[SUM, e] += tap[e] * row[e]


@jit(parallel=True)
def forward(x, taps, bias, window, y, blocks):  # type: ignore[no-untyped-def]
    """Every item and block of channels (S, 2); `taps` (K, C), `window` (B, K - 1, C)."""
    count = blocks.shape[0]
    for item in numba.prange(x.shape[0] * count):
        b, lo, hi = item // count, blocks[item % count, 0], blocks[item % count, 1]
        space = np.empty((1, BLOCK), x.dtype)
        for t in range(x.shape[1]):
            convolve(x, taps, bias, window, space, b, t, lo, hi - lo)
            row = y[b, t, lo:hi]
            for e in range(hi - lo):
                row[e] = space[SUM, e] * sigmoid(space[SUM, e])


@jit(parallel=True)
def backward(x, taps, bias, window, dy, dx, dtaps, dbias, dwindow, blocks):  # type: ignore[no-untyped-def]
    """Adjoint of `forward`; `dtaps` (B, K, C) and `dbias` (B, C) are those of each item."""
    count, K = blocks.shape[0], taps.shape[0]
    for item in numba.prange(x.shape[0] * count):
        b, lo, hi = item // count, blocks[item % count, 0], blocks[item % count, 1]
        width = hi - lo
        one, zero = x.dtype.type(1), x.dtype.type(0)
        space = np.empty((3, BLOCK), x.dtype)
        space[DBIAS, :width] = zero
        for t in range(x.shape[1]):
            convolve(x, taps, bias, window, space, b, t, lo, width)
            row = dy[b, t, lo:hi]
            for e in range(width):
                value = space[SUM, e]
                gate = sigmoid(value)
                space[DSUM, e] = row[e] * gate * (one + value * (one - gate))
                space[DBIAS, e] += space[DSUM, e]
            for k in range(K):
                at = t - K + 1 + k
                tap, dtap = taps[k, lo:hi], dtaps[b, k, lo:hi]
                if at >= 0:
                    read, write = x[b, at, lo:hi], dx[b, at, lo:hi]
                else:
                    read, write = window[b, K - 1 + at, lo:hi], dwindow[b, K - 1 + at, lo:hi]
                for e in range(width):
                    write[e] += space[DSUM, e] * tap[e]
                    dtap[e] += space[DSUM, e] * read[e]
        dbias[b, lo:hi] = space[DBIAS, :width]


library = torch.library.Library("archbench", "FRAGMENT")
library.define("causal_conv(Tensor x, Tensor taps, Tensor bias, Tensor window) -> Tensor")
library.define(
    "causal_conv_backward(Tensor x, Tensor taps, Tensor bias, Tensor window, Tensor dy)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.impl(library, "causal_conv", "CPU")
def _causal_conv(x: Tensor, taps: Tensor, bias: Tensor, window: Tensor) -> Tensor:
    inputs = [t.contiguous() for t in (x, taps, bias, window)]
    y = torch.empty_like(inputs[0])
    run(forward, *inputs, y, blocks_of(x.shape[2], BLOCK))
    return y


@torch.library.register_fake("archbench::causal_conv", lib=library)
def _causal_conv_fake(x: Tensor, taps: Tensor, bias: Tensor, window: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.impl(library, "causal_conv_backward", "CPU")
def _causal_conv_backward(
    x: Tensor, taps: Tensor, bias: Tensor, window: Tensor, dy: Tensor
) -> tuple[Tensor, ...]:
    inputs = [t.contiguous() for t in (x, taps, bias, window, dy)]
    batch = x.shape[0]
    dx, dwindow = torch.zeros_like(inputs[0]), torch.zeros_like(inputs[3])
    dtaps, dbias = taps.new_zeros(batch, *taps.shape), bias.new_empty(batch, *bias.shape)
    run(backward, *inputs, dx, dtaps, dbias, dwindow, blocks_of(x.shape[2], BLOCK))
    return dx, dtaps.sum(0), dbias.sum(0), dwindow


@torch.library.register_fake("archbench::causal_conv_backward", lib=library)
def _causal_conv_backward_fake(
    x: Tensor, taps: Tensor, bias: Tensor, window: Tensor, dy: Tensor
) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (x, taps, bias, window))


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
    grads: tuple[Tensor, ...] = torch.ops.archbench.causal_conv_backward(*ctx.saved_tensors, dy)
    return grads


register_gradient(library, "causal_conv", _gradients, _setup_context)


def causal_conv_fused(x: Tensor, weight: Tensor, bias: Tensor, window: Tensor | None) -> Tensor:
    """As `causal_conv_reference`, on fp32 or fp64 CPU tensors; no window is one of zeros."""
    if window is None:
        window = x.new_zeros(x.shape[0], weight.shape[2] - 1, x.shape[2])
    y: Tensor = torch.ops.archbench.causal_conv(
        x.contiguous(), weight[:, 0].T.contiguous(), bias, window
    )
    return y


def warm() -> None:
    """Compile both kernels, or load them from numba's cache."""
    x = torch.ones(1, 2, 2, requires_grad=True)
    causal_conv_fused(x, torch.ones(2, 1, 2), torch.ones(2), None).sum().backward()
