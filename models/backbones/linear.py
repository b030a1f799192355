"""Linear layers, y = x W^T + b, by the fastest product that torch has for the processor.

In fp32 on a CPU torch multiplies matrices by MKL, which takes its AVX2 form on a processor that is
not Intel's. oneDNN, by which torch computes convolutions, takes AVX-512 wherever there is any: on a
Zen 5 it does 500 GFLOP/s on two threads where MKL does 230 (`python -m benchmarks.linear`). There
it takes the products of all layers here, forward and backward; everywhere else torch's own does,
and always where `torch.backends.mkldnn.enabled` is false.

Shapes: N rows, K inputs, M outputs.
"""

import functools
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from models.kernels.available import counted

# Multiplications below which what surrounds a product costs more than the faster one saves.
FEW = 1 << 22


def vendor() -> str:
    """The processor's maker as it names itself, GenuineIntel or AuthenticAMD; or nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux; Windows has it at the end of a longer name
        return platform.processor().rpartition(" ")[2]
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id"))
    return next(named, "")


@functools.cache
def onednn_problem() -> str | None:
    """Why torch's own product is taken in fp32, in a sentence; None where oneDNN's is faster."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkl.is_available():
        return "torch was not built with both MKL and oneDNN"
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "this torch has no linear layer of oneDNN's"
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return "the processor has no AVX-512, or torch was told not to use it"
    if vendor() == "GenuineIntel":
        return "on Intel's processors MKL is as fast"
    return None


def product() -> str:
    """What multiplies the matrices of linear layers in fp32 on this CPU: "onednn" or "torch"."""
    fast = torch.backends.mkldnn.enabled and onednn_problem() is None
    return "onednn" if fast else "torch"


def _dense(matrix: Tensor) -> Tensor:
    # Of rows with gaps between them oneDNN takes the product a thousand times slower.
    whole = matrix.is_contiguous() or matrix.mT.is_contiguous()
    return matrix if whole else matrix.contiguous()


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    operands = _dense(x), _dense(weight), None if bias is None else bias.contiguous()
    y: Tensor = torch.ops.mkldnn._linear_pointwise(*operands, "none", [], "")
    return y


class _Linear(torch.autograd.Function):
    # dx = g W, dW = g^T x, db = sum_n g_n, which are linear layers as well and differentiable.
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        needs_x, needs_weight, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
        kept = (x if needs_weight else None, weight if needs_x else None)
        ctx.save_for_backward(*kept)  # type: ignore[arg-type]
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(
        ctx: FunctionCtx, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        rows = grad.flatten(0, -2)  # (N, M)
        d_x = linear(grad, weight.t()) if needs_x else None
        d_bias = rows.sum(0) if needs_bias else None
        if not needs_weight:
            return d_x, None, d_bias
        inputs = x.flatten(0, -2)  # (N, K)
        # Both operands lie across: oneDNN lays the first one out anew, so that is the narrow one.
        if rows.shape[1] <= inputs.shape[1]:
            return d_x, linear(rows.t(), inputs.t()), d_bias
        return d_x, linear(inputs.t(), rows.t()).t(), d_bias


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    # While torch compiles, sizes are symbols that a comparison would fix.
    return (
        not torch.compiler.is_compiling()
        and all(_plain(t) for t in (x, weight, bias) if t is not None)
        and x.dim() > 1
        and weight.shape[1:] == x.shape[-1:]  # torch says in its own words what does not fit
        and (bias is None or bias.shape == weight.shape[:1])
        and x.numel() * weight.shape[0] >= FEW
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and product() == "onednn"
        and not counted()
    )


def _plain(tensor: Tensor) -> bool:
    """Numbers in fp32 on a CPU, and no subclass of a tensor, which has products of its own."""
    return (
        tensor.dtype == torch.float32 and tensor.is_cpu and type(tensor) in (Tensor, nn.Parameter)
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., K), weight (M, K), bias (M) -> (..., M)."""
    if not _by_onednn(x, weight, bias):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        y: Tensor = _Linear.apply(x, weight, bias)
        return y
    return _onednn(x, weight, bias)


class Linear(nn.Linear):
    """torch's layer with that product."""

    @property
    def kernel_used(self) -> str | None:
        """What takes the products that are large enough; None where all are torch's."""
        fits = self.weight.is_cpu and self.weight.dtype == torch.float32
        return "onednn" if fits and product() == "onednn" else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., M)."""
        return linear(x, self.weight, self.bias)
