"""RMSNorm of a few rows without gradients, as a step of decoding has them (optional).

On a CPU torch computes `rms_norm` from its parts, which costs as much as the projections of a small
layer. Shapes: N rows, D width.
"""

import numpy as np
import torch
from torch import Tensor

from models.kernels.compiled import jit


@jit
def rms_norm(x, gain, eps, out):  # type: ignore[no-untyped-def]
    """x / sqrt(mean(x^2) + eps) gain, all (D)."""
    square = x.dtype.type(0)
    for j in range(x.shape[0]):
        square += x[j] * x[j]
    scale = x.dtype.type(1) / np.sqrt(square / x.dtype.type(x.shape[0]) + x.dtype.type(eps))
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


def warm() -> None:
    """Compile the kernel, or load it from numba's cache."""
    with torch.no_grad():
        rms_norm_fused(torch.ones(1, 2), torch.ones(2), 1e-5)
