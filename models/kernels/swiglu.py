"""The gate of SwiGLU, silu(gate) up, as a fused CPU kernel (optional).

torch takes one pass over memory for silu and one for the product, keeps what lies between them, and
takes five passes back. Here each direction is one pass, and gate and up alone are kept.

Shapes: N rows, F hidden width.
"""

from typing import Any

import numba
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.compiled import jit, run, sigmoid


@jit(parallel=True)
def forward(gate, up, y):  # type: ignore[no-untyped-def]
    """y = gate sigmoid(gate) up, all (N, F)."""
    for n in numba.prange(gate.shape[0]):
        g, u, out = gate[n], up[n], y[n]
        for f in range(g.shape[0]):
            out[f] = g[f] * sigmoid(g[f]) * u[f]


@jit(parallel=True)
def backward(gate, up, dy, dgate, dup):  # type: ignore[no-untyped-def]
    """dup = silu(gate) dy, and dgate = sigmoid(gate) (1 + gate (1 - sigmoid(gate))) up dy."""
    for n in numba.prange(gate.shape[0]):
        g, u, d, dg, du = gate[n], up[n], dy[n], dgate[n], dup[n]
        one = gate.dtype.type(1)
        for f in range(g.shape[0]):
            share = sigmoid(g[f])
            du[f] = g[f] * share * d[f]
            dg[f] = share * (one + g[f] * (one - share)) * u[f] * d[f]


library = torch.library.Library("archbench", "FRAGMENT")
library.define("swiglu(Tensor gate, Tensor up) -> Tensor")
library.define("swiglu_backward(Tensor gate, Tensor up, Tensor dy) -> (Tensor, Tensor)")


@torch.library.impl(library, "swiglu", "CPU")
def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.contiguous(), up.contiguous()
    y = torch.empty_like(gate)
    run(forward, *(t.view(-1, t.shape[-1]) for t in (gate, up, y)))
    return y


@torch.library.register_fake("archbench::swiglu", lib=library)
def _swiglu_fake(gate: Tensor, up: Tensor) -> Tensor:
    return gate.new_empty(gate.shape)


@torch.library.impl(library, "swiglu_backward", "CPU")
def _swiglu_backward(gate: Tensor, up: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    gate, up, dy = gate.contiguous(), up.contiguous(), dy.contiguous()
    dgate, dup = torch.empty_like(gate), torch.empty_like(up)
    run(backward, *(t.view(-1, t.shape[-1]) for t in (gate, up, dy, dgate, dup)))
    return dgate, dup


@torch.library.register_fake("archbench::swiglu_backward", lib=library)
def _swiglu_backward_fake(gate: Tensor, up: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    return gate.new_empty(gate.shape), up.new_empty(up.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


@once_differentiable
def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
    grads: tuple[Tensor, Tensor] = torch.ops.archbench.swiglu_backward(*ctx.saved_tensors, dy)
    return grads


torch.library.register_autograd(
    "archbench::swiglu", _gradients, setup_context=_setup_context, lib=library
)


def swiglu_fused(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up, (..., F) each, in fp32 or fp64 on a CPU."""
    y: Tensor = torch.ops.archbench.swiglu(gate.contiguous(), up.contiguous())
    return y


def warm() -> None:
    """Compile both kernels, or load them from numba's cache."""
    x = torch.ones(1, 2, requires_grad=True)
    swiglu_fused(x, x).sum().backward()
