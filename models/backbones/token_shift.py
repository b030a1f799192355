"""The token shift of RWKV: each input mixed with the one before it, by channel.

Both mixes of a block begin with it, in RWKV-4 (arXiv:2305.13048, section 3.1.1) as in RWKV-7
(arXiv:2503.14456).

Shapes: B batch, T time, D width.
"""

from typing import Any

import torch
from torch import Tensor


class _TokenShift(torch.autograd.Function):
    """x_t + (x_{t-1} - x_t) mu_j for several mu_j.

    One node instead of a chain for each j: its backward adds the branches in place.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, last: Tensor, *mus: Tensor) -> tuple[Tensor, ...]:
        delta = torch.empty_like(x)
        torch.sub(last, x[:, 0], out=delta[:, 0])
        torch.sub(x[:, :-1], x[:, 1:], out=delta[:, 1:])
        ctx.save_for_backward(delta, *mus)
        return tuple(torch.addcmul(x, delta, mu) for mu in mus)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        delta, *mus = ctx.saved_tensors
        d_x, d_delta = grads[0].clone(), grads[0] * mus[0]
        for grad, mu in zip(grads[1:], mus[1:], strict=True):
            d_x.add_(grad)
            d_delta.addcmul_(grad, mu)
        d_mus = [(grad * delta).sum((0, 1), keepdim=True) for grad in grads]
        d_x.sub_(d_delta)
        d_x[:, :-1].add_(d_delta[:, 1:])
        return d_x, d_delta[:, 0], *d_mus


def token_shift(x: Tensor, last: Tensor, *mus: Tensor) -> tuple[Tensor, ...]:
    """Each input mixed with its predecessor, once per mu: (B, T, D), (B, D) -> (B, T, D) each."""
    mixed: tuple[Tensor, ...] = _TokenShift.apply(x, last, *mus)
    return mixed
