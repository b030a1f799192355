"""Functions of one value that need their output alone on the way back, fused on a CPU (optional).

softplus(x) = log(1 + e^x), whose slope is 1 - e^-y: torch takes its logarithms one by one and keeps
the input as well. The squared ReLU y = max(x, 0)^2, whose slope is 2 sqrt(y): torch keeps the root
beside the square, and takes it slowly where it does not.

Shapes: N rows, F values in each.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.compiled import jit, run, softplus, softplus_slope

library = torch.library.Library("archbench", "FRAGMENT")


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


def define(name: str, forward: Any, backward: Any) -> Callable[[Tensor], Tensor]:
    """The operators archbench::name and archbench::name_backward of two kernels."""
    library.define(f"{name}(Tensor x) -> Tensor")
    library.define(f"{name}_backward(Tensor y, Tensor dy) -> Tensor")

    def rows(*tensors: Tensor) -> list[Tensor]:
        return [t.view(-1, t.shape[-1]) for t in tensors]

    def call(x: Tensor) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        run(forward, *rows(x, y))
        return y

    def call_backward(y: Tensor, dy: Tensor) -> Tensor:
        y, dy = y.contiguous(), dy.contiguous()
        dx = torch.empty_like(y)
        run(backward, *rows(y, dy, dx))
        return dx

    def fake(x: Tensor, *_: Tensor) -> Tensor:
        return x.new_empty(x.shape)

    def keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @once_differentiable
    def gradient(ctx: Any, dy: Tensor) -> Tensor:
        grad: Tensor = operators[1](*ctx.saved_tensors, dy)
        return grad

    for operator, function in ((name, call), (f"{name}_backward", call_backward)):
        torch.library.impl(library, operator, "CPU")(function)
        torch.library.register_fake(f"archbench::{operator}", fake, lib=library)
    torch.library.register_autograd(f"archbench::{name}", gradient, setup_context=keep, lib=library)
    operators = [getattr(torch.ops.archbench, n) for n in (name, f"{name}_backward")]
    made: Callable[[Tensor], Tensor] = operators[0]
    return made


# Each (..., F) -> (..., F), in fp32 or fp64 on a CPU.
softplus_fused = define("softplus", softplus_forward, softplus_backward)
squared_relu_fused = define("squared_relu", squared_relu_forward, squared_relu_backward)


def warm() -> None:
    """Compile all kernels, or load them from numba's cache."""
    for function in (softplus_fused, squared_relu_fused):
        function(torch.ones(1, 2, requires_grad=True)).sum().backward()
