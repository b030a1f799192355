"""Elementwise functions of the backbones as fused CPU kernels, forward and backward (optional).

- SwiGLU's gate, silu(gate) up: torch takes one pass over memory for silu and one for the product,
  keeps what lies between them, and takes five passes back. Here each direction is one pass, and
  gate and up alone are kept.
- softplus(x) = log(1 + e^x), whose slope is 1 - e^-y: torch takes its logarithms one by one and
  keeps the input as well. Here the output alone is kept.
- The squared ReLU y = max(x, 0)^2, whose slope is 2 sqrt(y): torch keeps the root beside the
  square, and takes it slowly where it does not. Here the output alone is kept.

Shapes: N rows, F values in each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from models.kernels.compiled import jit, run, sigmoid, softplus, softplus_slope
from models.kernels.operators import register_gradient

library = torch.library.Library("archbench", "FRAGMENT")


@jit(parallel=True)
def swiglu_forward(gate, up, y):  # type: ignore[no-untyped-def]
    """y = gate sigmoid(gate) up, all (N, F)."""
    for n in numba.prange(gate.shape[0]):
        g, u, out = gate[n], up[n], y[n]
        for f in range(g.shape[0]):
            out[f] = g[f] * sigmoid(g[f]) * u[f]


@jit(parallel=True)
def swiglu_backward(gate, up, dy, dgate, dup):  # type: ignore[no-untyped-def]
    """dup = silu(gate) dy, and dgate = sigmoid(gate) (1 + gate (1 - sigmoid(gate))) up dy."""
    for n in numba.prange(gate.shape[0]):
        g, u, d, dg, du = gate[n], up[n], dy[n], dgate[n], dup[n]
        one = gate.dtype.type(1)
        for f in range(g.shape[0]):
            share = sigmoid(g[f])
            du[f] = g[f] * share * d[f]
            dg[f] = share * (one + g[f] * (one - share)) * u[f] * d[f]


@jit(parallel=True)
def softplus_forward(x, y):  # type: ignore[no-untyped-def]
    """y = log(1 + e^x), all (N, F)."""
    for n in numba.prange(x.shape[0]):
        given, out = x[n], y[n]
        for f in range(given.shape[0]):
            out[f] = softplus(given[f])


@jit(parallel=True)
def softplus_backward(y, dy, dx):  # type: ignore[no-untyped-def]
    """dx = (1 - e^-y) dy, all (N, F)."""
    for n in numba.prange(y.shape[0]):
        output, d, out = y[n], dy[n], dx[n]
        for f in range(output.shape[0]):
            out[f] = softplus_slope(output[f]) * d[f]


@jit(parallel=True)
def squared_relu_forward(x, y):  # type: ignore[no-untyped-def]
    """y = max(x, 0)^2, all (N, F)."""
    for n in numba.prange(x.shape[0]):
        given, out = x[n], y[n]
        zero = given.dtype.type(0)
        for f in range(given.shape[0]):
            positive = zero if given[f] <= zero else given[f]  # a NaN stays one
            out[f] = positive * positive


@jit(parallel=True)
def squared_relu_backward(y, dy, dx):  # type: ignore[no-untyped-def]
    """dx = 2 sqrt(y) dy, all (N, F)."""
    for n in numba.prange(y.shape[0]):
        output, d, out = y[n], dy[n], dx[n]
        two = output.dtype.type(2)
        for f in range(output.shape[0]):
            out[f] = two * np.sqrt(output[f]) * d[f]


def define(
    name: str, forward: Any, backward: Any, names: Sequence[str], *, keeps_output: bool = False
) -> Callable[..., Tensor]:
    """The operators archbench::name and archbench::name_backward of two kernels.

    `forward` takes the inputs and the output, `backward` what is kept (the inputs, or with
    `keeps_output` the output), the output's gradient and those of the inputs.
    """
    listed, kept = (", ".join(f"Tensor {n}" for n in group) for group in (
        names, ("y",) if keeps_output else names
    ))  # fmt: skip
    results = "Tensor" if len(names) == 1 else f"({', '.join(['Tensor'] * len(names))})"
    library.define(f"{name}({listed}) -> Tensor")
    library.define(f"{name}_backward({kept}, Tensor dy) -> {results}")

    def rows(*tensors: Tensor) -> list[Tensor]:
        return [t.view(-1, t.shape[-1]) for t in tensors]

    def several(made: list[Tensor]) -> Any:
        return made[0] if len(made) == 1 else tuple(made)

    def call(*given: Tensor) -> Tensor:
        dense = [t.contiguous() for t in given]
        y = torch.empty_like(dense[0])
        run(forward, *rows(*dense, y))
        return y

    def call_backward(*given: Tensor) -> Any:
        dense = [t.contiguous() for t in given]
        grads = [torch.empty_like(dense[0]) for _ in names]
        run(backward, *rows(*dense, *grads))
        return several(grads)

    def fake(first: Tensor, *_: Tensor) -> Tensor:
        return first.new_empty(first.shape)

    def fake_backward(first: Tensor, *_: Tensor) -> Any:
        return several([first.new_empty(first.shape) for _ in names])

    def keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*((output,) if keeps_output else inputs))

    def gradients(ctx: Any, dy: Tensor) -> Any:
        return getattr(torch.ops.archbench, f"{name}_backward")(*ctx.saved_tensors, dy)

    torch.library.impl(library, name, "CPU")(call)
    torch.library.impl(library, f"{name}_backward", "CPU")(call_backward)
    torch.library.register_fake(f"archbench::{name}", fake, lib=library)
    torch.library.register_fake(f"archbench::{name}_backward", fake_backward, lib=library)
    register_gradient(library, name, gradients, keep)
    made: Callable[..., Tensor] = getattr(torch.ops.archbench, name)
    return made


# Of tensors (..., F), in fp32 or fp64 on a CPU: (..., F).
swiglu_fused = define("swiglu", swiglu_forward, swiglu_backward, ("gate", "up"))
softplus_fused = define(
    "softplus", softplus_forward, softplus_backward, ("x",), keeps_output=True
)  # fmt: skip
squared_relu_fused = define(
    "squared_relu", squared_relu_forward, squared_relu_backward, ("x",), keeps_output=True
)


def warm() -> None:
    """Compile all kernels, or load them from numba's cache."""
    x = torch.ones(1, 2, requires_grad=True)
    (swiglu_fused(x, x) + softplus_fused(x) + squared_relu_fused(x)).sum().backward()
