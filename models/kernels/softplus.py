"""softplus(x) = log(1 + e^x) as a fused CPU kernel, forward and backward (optional).

torch takes its logarithms one by one, and keeps the input for the way back. The slope is 1 - e^-y
of the output y as well, which whoever uses a step size keeps anyhow.

Shapes: N rows, F values in each.
"""

from typing import Any

import numba
import torch
from torch import Tensor

from models.kernels.compiled import jit, run, softplus, softplus_slope


@jit(parallel=True)
def forward(x, y):  # type: ignore[no-untyped-def]
    """y = log(1 + e^x), all (N, F)."""
    for n in numba.prange(x.shape[0]):
        given, out = x[n], y[n]
        for f in range(given.shape[0]):
            out[f] = softplus(given[f])


@jit(parallel=True)
def backward(y, dy, dx):  # type: ignore[no-untyped-def]
    """dx = (1 - e^-y) dy, all (N, F)."""
    for n in numba.prange(y.shape[0]):
        output, d, out = y[n], dy[n], dx[n]
        for f in range(output.shape[0]):
            out[f] = softplus_slope(output[f]) * d[f]


library = torch.library.Library("archbench", "FRAGMENT")
library.define("softplus(Tensor x) -> Tensor")
library.define("softplus_backward(Tensor y, Tensor dy) -> Tensor")


@torch.library.impl(library, "softplus", "CPU")
def _softplus(x: Tensor) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    run(forward, *(t.view(-1, t.shape[-1]) for t in (x, y)))
    return y


@torch.library.register_fake("archbench::softplus", lib=library)
def _softplus_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.impl(library, "softplus_backward", "CPU")
def _softplus_backward(y: Tensor, dy: Tensor) -> Tensor:
    y, dy = y.contiguous(), dy.contiguous()
    dx = torch.empty_like(y)
    run(backward, *(t.view(-1, t.shape[-1]) for t in (y, dy, dx)))
    return dx


@torch.library.register_fake("archbench::softplus_backward", lib=library)
def _softplus_backward_fake(y: Tensor, dy: Tensor) -> Tensor:
    return y.new_empty(y.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _gradients(ctx: Any, dy: Tensor) -> Tensor:
    (y,) = ctx.saved_tensors
    grad: Tensor = torch.ops.archbench.softplus_backward(y, dy)
    return grad


torch.library.register_autograd(
    "archbench::softplus", _gradients, setup_context=_setup_context, lib=library
)


def softplus_fused(x: Tensor) -> Tensor:
    """log(1 + e^x), (..., F), in fp32 or fp64 on a CPU."""
    y: Tensor = torch.ops.archbench.softplus(x)
    return y


def warm() -> None:
    """Compile both kernels, or load them from numba's cache."""
    softplus_fused(torch.ones(1, 2, requires_grad=True)).sum().backward()
