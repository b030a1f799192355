"""SwiGLU's gate, softplus and the squared ReLU, and which form of each runs.

The gate of SwiGLU (arXiv:2002.05202) is also that which Mamba-2, Mamba-3 and Gated DeltaNet put on
their outputs; softplus makes the step sizes of state-space models positive; the squared ReLU
(Primer, arXiv:2109.08668) is the activation of RWKV's channel mix, and by choice of the
Transformer's MLP. With `kernel` "torch" each is torch's everywhere.

Shapes: F hidden width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.available import fuses

FEW = 4096  # values that torch has taken before a kernel has begun


def swiglu(gate: Tensor, up: Tensor, kernel: str = "auto") -> Tensor:
    """silu(gate) up, (..., F) each. In training on a CPU fused, which keeps half as much."""
    if kernel != "torch" and fuses(gate) and gate.dtype == up.dtype:
        from models.kernels.elementwise import swiglu_fused

        return swiglu_fused(gate.contiguous(), up.contiguous())
    return F.silu(gate) * up


def softplus(x: Tensor, kernel: str = "auto") -> Tensor:
    """log(1 + e^x). On a CPU fused, where it is large; in training that keeps the output alone."""
    if kernel != "torch" and (fuses(x) or (fuses(x, inference=True) and x.numel() > FEW)):
        from models.kernels.elementwise import softplus_fused

        return softplus_fused(x)
    return F.softplus(x)


class _SquaredReLU(torch.autograd.Function):
    # Keeps the result alone, which the projection after it keeps as well.
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp_min(0).square_()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return y.sqrt().mul_(grad).mul_(2)


def squared_relu(x: Tensor, kernel: str = "auto") -> Tensor:
    """max(x, 0)^2. In training on a CPU fused."""
    if kernel != "torch" and fuses(x):
        from models.kernels.elementwise import squared_relu_fused

        return squared_relu_fused(x)
    y: Tensor = _SquaredReLU.apply(x)
    return y
