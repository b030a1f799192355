"""Rotary positions as one pass over memory (optional).

torch takes three, as a half of each head is another's product. The adjoint of a turn is the turn by
the opposite angle. Shapes: B batch, T positions, H heads, d head width.
"""

from typing import Any

import numba
import torch
from torch import Tensor

from models.kernels.compiled import jit, run

library = torch.library.Library("archbench", "FRAGMENT")
library.define("rotate(Tensor x, Tensor cos, Tensor sin, int sign) -> Tensor")


@jit(parallel=True)
def turn(x, cos, sin, y, sign):  # type: ignore[no-untyped-def]
    """x and y (B, T, H, d), cos and sin (T, d), with the sine's sign as `Rope` has it."""
    length, half = x.shape[1], x.shape[3] // 2
    way = x.dtype.type(sign)
    for n in numba.prange(x.shape[0] * length):
        b, t = n // length, n % length
        for h in range(x.shape[2]):
            given, out = x[b, t, h], y[b, t, h]
            for i in range(half):
                first, second = given[i], given[half + i]
                out[i] = first * cos[t, i] + way * second * sin[t, i]
                out[half + i] = second * cos[t, half + i] + way * first * sin[t, half + i]


@torch.library.impl(library, "rotate", "CPU")
def _rotate(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    run(turn, x, cos.contiguous(), sin.contiguous(), y, numbers=(sign,))
    return y


@torch.library.register_fake("archbench::rotate", lib=library)
def _rotate_fake(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    return x.new_empty(x.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, cos, sin, ctx.sign = inputs
    ctx.save_for_backward(cos, sin)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
    return torch.ops.archbench.rotate(dy, *ctx.saved_tensors, -ctx.sign), None, None, None


torch.library.register_autograd(
    "archbench::rotate", _gradients, setup_context=_setup_context, lib=library
)


def rotate_fused(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, T, H, d), cos and sin (T, 1, d), as `Rope` gives them: (B, T, H, d)."""
    y: Tensor = torch.ops.archbench.rotate(x, cos[:, 0], sin[:, 0], 1)
    return y


def warm() -> None:
    """Compile the kernel, or load it from numba's cache."""
    x, angle = torch.ones(1, 1, 1, 2, requires_grad=True), torch.ones(1, 1, 2)
    rotate_fused(x, angle, angle).sum().backward()
