"""Root Mean Square Layer Normalization (arXiv:1910.07467).

y = x / sqrt(mean(x^2) + eps) * w, over the last axis.

On a CPU torch computes `rms_norm` from its parts and stores each of them. A fused kernel takes its
place (models/kernels/rms_norm.py); where none runs, `_FusedRMSNorm` does with torch's operators: it
too keeps the input and one number a row, and writes the backward with two matrix-vector products.
Other devices have a kernel of their own. `benchmarks/transformer.py` compares ours with torch's.

Shapes: N rows, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from models.kernels.available import counted, fuses, numba_problem, transformed


class _FusedRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        # r = 1 / sqrt(mean(x^2) + eps)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        r = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()  # (N, 1)
        ctx.save_for_backward(x, r, weight)
        return (x * r).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, r, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        product = grad * x  # (N, D)
        # dw = sum_n r_n g_n x_n;  dx = r g w - x r^3 (g x . w) / D
        d_weight = r.T @ product  # (1, D)
        along = (product @ weight).unsqueeze(1)  # (N, 1)
        d_x = torch.mul(grad, weight, out=product).mul_(r)
        d_x.addcmul_(x, r.pow(3).mul_(along), value=-1.0 / x.shape[-1])
        return d_x, d_weight[0], None


FEW = 16_384  # values up to which one thread is faster than torch's five operators


class RMSNorm(nn.Module):
    """Scale every vector to unit root mean square, times a learned weight."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        full = x.dtype == self.weight.dtype and x.dtype in (torch.float32, torch.float64)
        fits = x.dim() > 0 and x.shape[-1:] == self.weight.shape  # torch says what does not
        if not (x.is_cpu and full and fits) or transformed():
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        if torch.is_grad_enabled():
            return self._with_gradients(x.reshape(-1, x.shape[-1])).view(x.shape)
        few = x.numel() <= FEW and not counted() and not torch.compiler.is_compiling()
        if few and numba_problem() is None:
            from models.kernels.rms_norm import rms_norm_fused

            return rms_norm_fused(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)

    def _with_gradients(self, rows: Tensor) -> Tensor:
        """(N, D) -> (N, D), on a CPU."""
        if fuses(rows):
            from models.kernels.rms_norm import rms_norm_trained

            return rms_norm_trained(rows, self.weight, self.eps)
        y: Tensor = _FusedRMSNorm.apply(rows, self.weight, self.eps)
        return y
