"""Causal attention on a CPU by torch's own kernel, without most of what the mask would hide.

On a CPU `scaled_dot_product_attention` is FlashAttention-2 (arXiv:2307.08691) over blocks of 512
keys (aten/src/ATen/native/cpu/FlashAttentionKernel.cpp), and it passes over those blocks alone that
lie in the future as a whole: up to 512 symbols the causal form computes every pair. Here the same
kernel is called once for every block of queries, and in the backward once for every block of keys.
The first sees the keys up to its own end, so that nothing has to be merged. The second takes the
output and the log-sum-exp L of the whole, from which each block has its own probabilities
exp(S - L) (algorithm 2, line 11), and adds up dQ.

Shapes: B batch, H heads, T time, d head width.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.available import counted

BLOCK = 128  # positions
SHORTEST = 256  # from here on the backward gains, and above it the forward
LONGEST = 768  # up to here the forward does: then the kernel itself takes longer blocks of queries
FULL_TYPES = (torch.float32, torch.float64)

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def in_blocks(q: Tensor, k: Tensor) -> bool:
    """Whether `attend_in_blocks` is the faster form of causal attention over (B, H or K, T, d).

    Not where a mode counts torch's operators: it would count a tall block of pairs as a whole one.
    """
    return (
        q.is_cpu
        and q.shape[2] == k.shape[2] >= SHORTEST
        and q.dtype in FULL_TYPES
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not counted()
    )


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, q (B, H, T, d) over k and v (B, K, T, d), K a divisor of H."""
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)  # (B, H, T, d)
    y: Tensor = _Causal.apply(q, k, v)
    return y


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length = q.shape[2]
        if SHORTEST < length < LONGEST:
            y, lse = _by_queries(q, k, v)
        else:
            y, lse = _forward(q, k, v, 0.0, True)
        ctx.save_for_backward(q, k, v, y, lse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, y, lse = ctx.saved_tensors
        dq, dk, dv = q, torch.empty_like(k), torch.empty_like(v)
        length = q.shape[2]
        block = BLOCK if length <= 8 * BLOCK else 2 * BLOCK
        for first in range(0, length, block):
            # The kernel's mask begins at the upper left: query i of the rest sees keys up to i.
            rest, own = slice(first, None), slice(first, first + block)
            part, dk[:, :, own], dv[:, :, own] = _backward(
                *(t[:, :, rest] for t in (dy, q)), *(t[:, :, own] for t in (k, v)),
                y[:, :, rest], lse[:, :, rest], 0.0, True,
            )  # fmt: skip
            if first == 0:
                dq = part
            else:
                dq[:, :, rest] += part
        return dq, dk, dv


def _by_queries(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, H, T, d) and log-sum-exp (B, H, T), block by block of queries."""
    batch, heads, length, width = q.shape
    mask = _mask(q.dtype)
    y = q.new_empty(batch, length, heads, width).transpose(1, 2)  # heads side by side in memory
    lse = q.new_empty(batch, length, heads).transpose(1, 2)
    for first in range(0, length, BLOCK):
        stop = min(first + BLOCK, length)
        own = slice(first, stop)
        seen = mask[: stop - first, LONGEST - first : LONGEST - first + stop]  # (queries, keys)
        y[:, :, own], lse[:, :, own] = _forward(
            q[:, :, own], k[:, :, :stop], v[:, :, :stop], 0.0, attn_mask=seen
        )
    return y, lse


@cache
def _mask(dtype: torch.dtype) -> Tensor:
    """(BLOCK, LONGEST + BLOCK): added to the scores of a block with keys before it and its own."""
    own = torch.full((BLOCK, BLOCK), -torch.inf, dtype=dtype).triu_(1)
    return torch.cat([torch.zeros(BLOCK, LONGEST, dtype=dtype), own], 1)
