"""Transformer: pre-norm decoder with rotary positions, SwiGLU and grouped-query attention.

Attention Is All You Need (arXiv:1706.03762) in the form of LLaMA (arXiv:2302.13971): RMSNorm
before every sub-layer (arXiv:1910.07467), RoPE (arXiv:2104.09864), SwiGLU (arXiv:2002.05202),
grouped-query attention (arXiv:2305.13245). Optionally normalised queries and keys
(arXiv:2302.05442) and a squared-ReLU MLP (Primer, arXiv:2109.08668).

Glossary: `q, k, v` = Q, K, V; `head_dim` = d_k; `inv_freq` = theta_i of RoPE; `groups` = query
heads that share a key head (H / G in the grouped-query paper, whose G is `n_kv_heads`).

Deviations from LLaMA: output projections start at `residual_init` times the usual scale (0: every
layer starts as the identity), query/key norms and the squared-ReLU MLP are options. Parameter
names and the RoPE convention (`rotate_half`) are those of transformers' LlamaForCausalLM, with
`q_norm`, `k_norm` as in Qwen3, see `CHECKPOINT_NAMES`.

Shapes: B batch, T queries, S keys, D width, H query heads, K key-value heads, d head width.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.attention import (
    KERNELS,
    Arrays,
    KVCache,
    Rope,
    attend,
    kernel_problem,
    rotate,
    training_problem,
)
from models.backbones.linear import Linear, untouched
from models.backbones.norm import RMSNorm
from models.backbones.sizes import check_sizes
from models.backbones.swiglu import swiglu
from models.backbones.unary import squared_relu
from models.kernels.available import choose_kernel, counted, numba_problem
from models.kernels.views import Views

if TYPE_CHECKING:
    from models.kernels.attention_step import FusedAttention
    from models.kernels.mlp_step import FusedBlock

Array: TypeAlias = np.ndarray[Any, Any]
# Prefixes of ours -> those of transformers' LlamaForCausalLM.
CHECKPOINT_NAMES = {
    "embedding.": "model.embed_tokens.",
    "backbone.": "model.",
    "lm_head.": "lm_head.",
}
MLPS = ("swiglu", "relu2")


@dataclass
class TransformerState:
    """One cache a layer, and the absolute position of the next symbol."""

    layers: list[KVCache] = field(default_factory=list)
    position: int = 0


def projection(d_in: int, d_out: int, scale: float = 1.0) -> Linear:
    """A projection without bias, normal with standard deviation scale / sqrt(d_in)."""
    layer = Linear(d_in, d_out, bias=False)
    nn.init.normal_(layer.weight, std=scale / math.sqrt(d_in))
    return layer


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
        self._views = Views(self, self.fuse)

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

    def fuses_step(self, x: Tensor, cache: KVCache) -> bool:
        """Whether a fused kernel takes a position: of one sequence, without gradients."""
        return (
            x.shape[0] == cache.k.shape[0] == 1
            and x.is_cpu
            and x.shape[1] == self.d_model
            and x.dtype == next(self.parameters()).dtype
            and x.dtype == cache.k.dtype
            and x.dtype in (torch.float32, torch.float64)
            and self.attention == "sdpa"
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not counted()
            and numba_problem() is None
        )

    def fused(self) -> "FusedAttention | None":
        """A step on these parameters by a kernel, where `fuses_step`; None where layers changed."""
        views = self._views()
        return None if self._views.hooked else views

    def fuse(self) -> "FusedAttention | None":
        """The same, of what the layers are now."""
        from models.kernels.attention_step import FusedAttention

        if not untouched(self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            return None
        projections = (self.q_proj, self.k_proj, self.v_proj, self.o_proj)
        q, k, v, o = (p.weight for p in projections)
        if not self.qk_norm:
            return FusedAttention((q, k, v, o), None, 0.0)
        return FusedAttention(
            (q, k, v, o), (self.q_norm.weight, self.k_norm.weight), self.q_norm.eps
        )

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


def begin_fused_step(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Arrays, Array]:
    """What the kernels of a step take: cosines and sines (d), and x (1, D) as (D)."""
    from models.kernels.compiled import share_threads

    share_threads()
    turns = (cos.to(x.dtype).numpy()[0, 0], sin.to(x.dtype).numpy()[0, 0])
    return turns, x.numpy()[0]


class MLP(nn.Module):
    """SwiGLU, W_down (silu(W_gate x) * W_up x), or squared ReLU, W_down relu(W_up x)^2."""

    def __init__(self, *, d_model: int, d_ff: int, mlp: str, residual_init: float) -> None:
        super().__init__()
        if mlp not in MLPS:
            raise ValueError(f"mlp={mlp!r} is unknown; allowed: {', '.join(MLPS)}")
        check_sizes(d_ff=d_ff)
        self.gated = mlp == "swiglu"
        if self.gated:
            self.gate_proj = projection(d_model, d_ff)
        self.up_proj = projection(d_model, d_ff)
        self.down_proj = projection(d_ff, d_model, residual_init)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        up = self.up_proj(x)  # (..., d_ff)
        hidden = swiglu(self.gate_proj(x), up) if self.gated else squared_relu(up)
        return self.down_proj(hidden)

    def weights(self) -> tuple[Tensor, ...]:
        """Gate, up and down; without a gate two."""
        layers = (self.up_proj, self.down_proj)
        return tuple(p.weight for p in ((self.gate_proj, *layers) if self.gated else layers))

    def untouched(self) -> bool:
        """Whether its weights say all that a kernel has to know."""
        layers = (self.up_proj, self.down_proj)
        return untouched(*layers, self.gate_proj) if self.gated else untouched(*layers)

    def fuse(self, norm: Tensor, eps: float) -> Callable[[Array], Array] | None:
        """x + mlp(norm(x)) of one position by a kernel; None where layers were changed."""
        from models.kernels.mlp_step import FusedMLP

        if not self.untouched():
            return None
        return FusedMLP(norm, eps, self.weights())

    def flops(self, batch: int, length: int) -> int:
        """The matrix products."""
        return 2 * batch * length * sum(p.numel() for p in self.parameters())


class FeedForward(Protocol):
    """What a block asks of its position-wise half."""

    def __call__(self, x: Tensor) -> Tensor: ...
    def fuse(self, norm: Tensor, eps: float) -> Callable[[Array], Array] | None: ...
    def flops(self, batch: int, length: int) -> int: ...


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    mlp: FeedForward

    def __init__(self, *, self_attn: Attention, mlp: FeedForward, norm_eps: float) -> None:
        super().__init__()
        d_model = self_attn.o_proj.out_features
        self.input_layernorm = RMSNorm(d_model, norm_eps)
        self.self_attn = self_attn
        self.post_attention_layernorm = RMSNorm(d_model, norm_eps)
        self.mlp = mlp
        self._views = Views(self, self._fuse)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache) -> Tensor:
        """One position, (B, D) -> (B, D)."""
        x = x + self.self_attn.step(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))

    def fused(self) -> "FusedBlock | None":
        """A step on these parameters by kernels, for one sequence; None where layers changed."""
        views = self._views()
        return None if self._views.hooked else views

    def _fuse(self) -> "FusedBlock | None":
        from models.kernels.mlp_step import FusedBlock

        norm = self.input_layernorm
        attention = self.self_attn.fuse()
        after = self.post_attention_layernorm
        feed = self.mlp.fuse(after.weight, after.eps)
        if attention is None or feed is None:
            return None
        return FusedBlock(norm.weight, norm.eps, attention, feed)


class Decoder(nn.Module):
    """What the dense and the sparse Transformer share: a stack of blocks and its caches."""

    def __init__(
        self, *, layers: Sequence[Block], causal: bool, rope_theta: float, norm_eps: float
    ) -> None:
        super().__init__()
        attention = layers[0].self_attn
        self.d_model = attention.o_proj.out_features
        self.causal = causal
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(self.d_model, norm_eps)
        self.rope = Rope(attention.head_dim, rope_theta)

    def forward(self, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B, T, D) -> (B, T, D), no auxiliary losses."""
        cos, sin = self.rope(0, x.shape[1])  # (T, 1, d)
        for block in self._blocks():
            x = block(x, cos, sin)
        return self.norm(x), {}

    def init_state(
        self, batch: int, *, device: torch.device, dtype: torch.dtype
    ) -> TransformerState:
        """Empty caches; they grow with the symbols."""
        if not self.causal:
            raise ValueError("causal=False has no recurrent form; build it with causal=True")
        caches = [
            block.self_attn.empty_cache(batch, device=device, dtype=dtype)
            for block in self._blocks()
        ]
        return TransformerState(caches)

    def prefill(self, x: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """Continue from `state` over (B, T, D)."""
        cos, sin = self._positions(state, x.shape[1])
        for block, cache in zip(self._blocks(), state.layers, strict=True):
            x = block(x, cos, sin, cache)
        return self.norm(x), state

    def step(self, x: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """One symbol, (B, D) -> (B, D)."""
        cos, sin = self._positions(state, 1)
        layers = zip(self._blocks(), state.layers, strict=True)
        fused = self._fused(x, state)
        if fused is None:
            for block, cache in layers:
                x = block.step(x, cos, sin, cache)
            return self.norm(x), state
        turns, row = begin_fused_step(x, cos, sin)
        for step, cache in zip(fused, state.layers, strict=True):
            row = step(row, turns, *cache.place())
        return self.norm(torch.from_numpy(row)[None]), state

    def crop(self, state: TransformerState, length: int) -> TransformerState:
        """Keep the last `length` keys; they stay rotated at their absolute positions."""
        if length < 0:
            raise ValueError(f"length={length} must be at least 0")
        for cache in state.layers:
            cache.crop(length)
        return state

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Keys and values of all layers, unused room of the last piece included."""
        return sum(b.self_attn.cache_bytes(batch, context, dtype) for b in self._blocks())

    def flops(self, batch: int, length: int) -> int:
        """Matrix products of one forward pass; norms and activations are not counted."""
        return sum(
            block.self_attn.flops(batch, length) + block.mlp.flops(batch, length)
            for block in self._blocks()
        )

    @property
    def kernel_used(self) -> str:
        """The attention that was asked for, and the fused kernels beside it.

        They take single steps, and SwiGLU's gate in training.
        """
        weight, attention = self.norm.weight, next(iter(self._blocks())).self_attn
        fits = attention.attention == "sdpa" and self.causal
        fused = choose_kernel("auto", weight.device, weight.dtype, fits=fits)
        return f"{attention.attention}+numba" if fused == "numba" else attention.attention

    def _fused(self, x: Tensor, state: TransformerState) -> "list[FusedBlock] | None":
        first = next(iter(self._blocks()))
        if not first.self_attn.fuses_step(x, state.layers[0]):
            return None
        found = [block.fused() for block in self._blocks()]
        steps = [step for step in found if step is not None]
        return steps if len(steps) == len(found) else None

    def _blocks(self) -> Iterable[Block]:
        return cast(Iterable[Block], self.layers)

    def _positions(self, state: TransformerState, count: int) -> tuple[Tensor, Tensor]:
        if not self.causal:
            raise ValueError("causal=False has no recurrent form; build it with causal=True")
        start, state.position = state.position, state.position + count
        return self.rope(start, start + count)


class Transformer(Decoder):
    """The dense decoder; `causal=False` makes it an encoder without the recurrent form."""

    def __init__(
        self,
        *,
        d_model: int,
        n_layers: int,
        n_heads: int,
        n_kv_heads: int,
        d_ff: int,
        attention: str,
        causal: bool,
        qk_norm: bool,
        mlp: str,
        rope_theta: float,
        norm_eps: float,
        residual_init: float,
    ) -> None:
        check_sizes(n_layers=n_layers)
        layers = [
            Block(
                self_attn=Attention(
                    d_model=d_model,
                    n_heads=n_heads,
                    n_kv_heads=n_kv_heads,
                    attention=attention,
                    causal=causal,
                    qk_norm=qk_norm,
                    norm_eps=norm_eps,
                    residual_init=residual_init,
                ),
                mlp=MLP(d_model=d_model, d_ff=d_ff, mlp=mlp, residual_init=residual_init),
                norm_eps=norm_eps,
            )
            for _ in range(n_layers)
        ]
        super().__init__(layers=layers, causal=causal, rope_theta=rope_theta, norm_eps=norm_eps)
