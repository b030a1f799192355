"""RMSNorm as one pass over memory in each direction (optional).

On a CPU torch computes it from its parts, which costs as much as the projections of a small layer.
`rms_norm_fused` is for a few rows without gradients, as a step of decoding has them;
`rms_norm_trained` has gradients. Shapes: N rows, D width, S shares of the rows.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from models.kernels.compiled import jit, run


@jit
def scale_of(x, eps):  # type: ignore[no-untyped-def]
    """1 / sqrt(mean(x^2) + eps) of x (D)."""
    square = x.dtype.type(0)
    for j in range(x.shape[0]):
        square += x[j] * x[j]
    return x.dtype.type(1) / np.sqrt(square / x.dtype.type(x.shape[0]) + x.dtype.type(eps))


@jit
def rms_norm(x, gain, eps, out):  # type: ignore[no-untyped-def]
    """x / sqrt(mean(x^2) + eps) gain, all (D)."""
    scale = scale_of(x, eps)
    for j in range(x.shape[0]):
        out[j] = x[j] * scale * gain[j]


@jit
def rms_norm_rows(x, gain, eps, out):  # type: ignore[no-untyped-def]
    """Of each row of x (N, D)."""
    for n in range(x.shape[0]):
        rms_norm(x[n], gain, eps, out[n])


def rms_norm_fused(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """(..., D) -> (..., D), in fp32 or fp64 on a CPU."""
    x = x.contiguous()
    out, width = torch.empty_like(x), x.shape[-1]
    rms_norm_rows(x.numpy().reshape(-1, width), weight.detach().numpy(), eps,
                  out.numpy().reshape(-1, width))  # fmt: skip
    return out


@jit(parallel=True)
def forward(x, gain, y, scales, eps):  # type: ignore[no-untyped-def]
    """y (N, D) and the scale of each row (N) of x (N, D)."""
    for n in numba.prange(x.shape[0]):
        given, out = x[n], y[n]
        scale = scale_of(given, eps)
        for j in range(given.shape[0]):
            out[j] = given[j] * scale * gain[j]
        scales[n] = scale


@jit(parallel=True)
def backward(x, gain, scales, dy, dx, dgain):  # type: ignore[no-untyped-def]
    """With g = dy gain: dx = r g - x r^3 (g . x) / D, and dgain (S, D) has a row for each share."""
    N, D = x.shape
    shares = dgain.shape[0]
    for share in numba.prange(shares):
        sums = dgain[share]
        sums[:] = 0
        for n in range(N * share // shares, N * (share + 1) // shares):
            given, d, out, scale = x[n], dy[n], dx[n], scales[n]
            along = given.dtype.type(0)
            for j in range(D):
                along += given[j] * d[j] * gain[j]
            along *= scale * scale * scale / given.dtype.type(D)
            for j in range(D):
                sums[j] += given[j] * d[j] * scale
                out[j] = d[j] * gain[j] * scale - given[j] * along


library = torch.library.Library("archbench", "FRAGMENT")
library.define("rms_norm(Tensor x, Tensor weight, float eps) -> (Tensor, Tensor)")
library.define(
    "rms_norm_backward(Tensor x, Tensor weight, Tensor scales, Tensor dy) -> (Tensor, Tensor)"
)


@torch.library.impl(library, "rms_norm", "CPU")
def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    y, scales = torch.empty_like(x), x.new_empty(x.shape[0])
    run(forward, x, weight.contiguous(), y, scales, numbers=(eps,))
    return y, scales


@torch.library.register_fake("archbench::rms_norm", lib=library)
def _rms_norm_fake(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0])


@torch.library.impl(library, "rms_norm_backward", "CPU")
def _rms_norm_backward(x: Tensor, weight: Tensor, scales: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    x, dy = x.contiguous(), dy.contiguous()
    dx = torch.empty_like(x)
    dgain = x.new_empty(min(torch.get_num_threads(), x.shape[0]), x.shape[1])
    run(backward, x, weight.contiguous(), scales, dy, dx, dgain)
    return dx, dgain.sum(0)


@torch.library.register_fake("archbench::rms_norm_backward", lib=library)
def _rms_norm_backward_fake(
    x: Tensor, weight: Tensor, scales: Tensor, dy: Tensor
) -> tuple[Tensor, ...]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.eps = inputs[2]
    ctx.save_for_backward(*inputs[:2], output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return None, None, None
    if torch.is_grad_enabled():  # a second derivative may follow: by operators that have one
        x, weight, _ = ctx.saved_tensors
        r = (x.square().mean(1, keepdim=True) + ctx.eps).rsqrt()  # (N, 1)
        g = dy * weight
        dx = r * g - x * r.pow(3) * (g * x).mean(1, keepdim=True)
        return dx, (dy * x * r).sum(0), None
    return *torch.ops.archbench.rms_norm_backward(*ctx.saved_tensors, dy), None


torch.library.register_autograd(
    "archbench::rms_norm", _gradients, setup_context=_setup_context, lib=library
)


def rms_norm_trained(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """(N, D) -> (N, D), in fp32 or fp64 on a CPU, with gradients."""
    y: Tensor = torch.ops.archbench.rms_norm(x, weight, eps)[0]
    return y


def warm() -> None:
    """Compile the kernels, or load them from numba's cache."""
    x = torch.ones(1, 2, requires_grad=True)
    rms_norm_trained(x, torch.ones(2, requires_grad=True), 1e-5).sum().backward()
    with torch.no_grad():
        rms_norm_fused(x, torch.ones(2), 1e-5)
