"""The attention of a Transformer's block, as hybrids have it too.

Grouped-query attention (arXiv:2305.13245) with rotary positions (arXiv:2104.09864) and optionally
normalised queries and keys (arXiv:2302.05442). The glossary stands in `transformer`.

Shapes: B batch, T queries, S keys, D width, H query heads, K key-value heads, d head width.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.attention import (
    KERNELS,
    KVCache,
    attend,
    kernel_problem,
    rotate,
    training_problem,
)
from models.backbones.mlp import projection
from models.backbones.norm import RMSNorm
from models.kernels.available import choose_kernel, steps_fused

if TYPE_CHECKING:
    from models.kernels.attention_step import FusedAttention


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        n_kv_heads: int,
        attention: str,
        causal: bool,
        qk_norm: bool,
        norm_eps: float,
        residual_init: float,
    ) -> None:
        super().__init__()
        if attention not in KERNELS:
            raise ValueError(f"attention={attention!r} is unknown; allowed: {', '.join(KERNELS)}")
        if n_heads < 1 or d_model % n_heads or (d_model // n_heads) % 2:
            raise ValueError(
                f"d_model={d_model} must be n_heads={n_heads} times an even head width"
            )
        if n_kv_heads < 1 or n_heads % n_kv_heads:
            raise ValueError(f"n_kv_heads={n_kv_heads} must divide n_heads={n_heads}")
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, d_model // n_heads
        self.attention, self.causal, self.qk_norm = attention, causal, qk_norm
        self.d_model = d_model
        self.q_proj = projection(d_model, n_heads * self.head_dim)
        self.k_proj = projection(d_model, n_kv_heads * self.head_dim)
        self.v_proj = projection(d_model, n_kv_heads * self.head_dim)
        self.o_proj = projection(n_heads * self.head_dim, d_model, residual_init)
        if qk_norm:
            self.q_norm = RMSNorm(self.head_dim, norm_eps)
            self.k_norm = RMSNorm(self.head_dim, norm_eps)

    def qkv(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, values: (..., D) -> (..., H or K, d)."""
        q = self.q_proj(x).unflatten(-1, (self.n_heads, self.head_dim))  # (..., H, d)
        k = self.k_proj(x).unflatten(-1, (self.n_kv_heads, self.head_dim))  # (..., K, d)
        v = self.v_proj(x).unflatten(-1, (self.n_kv_heads, self.head_dim))  # (..., K, d)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); with a cache the keys before it are seen as well."""
        q, k, v = (y.transpose(1, 2) for y in self.qkv(x, cos, sin))  # (B, H or K, T, d)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, K, S, d)
        y = attend(q, k, v, kernel=self.attention, causal=self.causal)  # (B, H, T, d)
        return self.o_proj(y.transpose(1, 2).flatten(2))  # (B, T, D)

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache) -> Tensor:
        """One position, (B, D) -> (B, D)."""
        q, k, v = self.qkv(x, cos, sin)  # (B, H or K, d)
        k, v = cache.append(k.unsqueeze(2), v.unsqueeze(2))  # (B, K, S, d)
        # The queries of one group stand side by side as if they were positions: no key is repeated
        # and no mask is needed, whatever the kernel of the parallel form.
        q = q.unflatten(1, (self.n_kv_heads, -1))  # (B, K, H/K, d)
        y = F.scaled_dot_product_attention(q, k, v)  # (B, K, H/K, d)
        return self.o_proj(y.flatten(1))  # (B, D)

    def kernel_problem(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why the kernel that was asked for cannot run there, or None."""
        return kernel_problem(self.attention, device, dtype, self.head_dim)

    def training_problem(self, device: torch.device) -> str | None:
        """Why the kernel that was asked for cannot be trained through there, or None."""
        return training_problem(self.attention, device)

    def takes(self, x: Tensor, cache: KVCache) -> bool:
        """Whether a kernel may take a position x (B, D): of one sequence, without gradients."""
        return (
            self.attention == "sdpa"
            and steps_fused(x, cache.k, cache.v)
            and x.shape[1:] == (self.d_model,)
            and cache.k.shape[1::2] == (self.n_kv_heads, self.head_dim)
        )

    def fuse(self, norm: RMSNorm | None = None) -> "FusedAttention":
        """A step on these parameters by a kernel, with the norm before it where there is one."""
        from models.kernels.attention_step import FusedAttention

        q, k, v, o = (p.weight for p in (self.q_proj, self.k_proj, self.v_proj, self.o_proj))
        gains = (self.q_norm.weight, self.k_norm.weight) if self.qk_norm else None
        return FusedAttention(
            (q, k, v, o), gains, self.q_norm.eps if self.qk_norm else 0.0,
            None if norm is None else (norm.weight, norm.eps),
        )  # fmt: skip

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """The attention that was asked for, and the fused kernels that take single steps."""
        fits = self.attention == "sdpa" and self.causal
        fused = choose_kernel("auto", device, dtype, fits=fits)
        return f"{self.attention}+numba" if fused == "numba" else self.attention

    def empty_cache(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> KVCache:
        """No keys and no values yet; they grow with the symbols."""
        shape = (batch, self.n_kv_heads, 0, self.head_dim)  # (B, K, 0, d)
        empty = torch.empty(shape, device=device, dtype=dtype)
        return KVCache(empty, empty)

    def cache_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Keys and values of `context` symbols, unused room of the last piece included."""
        width = self.n_kv_heads * self.head_dim
        return 2 * batch * KVCache.capacity_for(context) * width * dtype.itemsize

    def flops(self, batch: int, length: int) -> int:
        """Projections, and the score and value products of the pairs that are seen."""
        weights = sum(p.weight.numel() for p in (self.q_proj, self.k_proj, self.v_proj))
        weights += self.o_proj.weight.numel()
        pairs = length * (length + 1) // 2 if self.causal else length * length
        return 2 * batch * (length * weights + 2 * pairs * self.n_heads * self.head_dim)
