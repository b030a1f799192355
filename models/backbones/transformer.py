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

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from torch import Tensor, nn

from models.backbones.attention import KVCache, Rope
from models.backbones.attention_layer import Attention
from models.backbones.branches import Branch, Run, keeping
from models.backbones.mlp import MLP, FeedForward
from models.backbones.norm import RMSNorm
from models.backbones.sizes import check_sizes
from models.kernels.views import Array, Views

if TYPE_CHECKING:
    from models.kernels.attention_step import FusedAttention

    # The two halves of a block by kernels.
    Halves: TypeAlias = tuple[FusedAttention, Callable[[Array], Array]]

# Prefixes of ours -> those of transformers' LlamaForCausalLM.
CHECKPOINT_NAMES = {
    "embedding.": "model.embed_tokens.",
    "backbone.": "model.",
    "lm_head.": "lm_head.",
}


@dataclass
class TransformerState:
    """One cache a layer, and the absolute position of the next symbol."""

    layers: list[KVCache] = field(default_factory=list)
    position: int = 0


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
        self.views = Views(self, self._fuse)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache) -> Tensor:
        """One position, (B, D) -> (B, D)."""
        x = x + self.self_attn.step(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))

    def _fuse(self) -> "Halves":
        attend = self.self_attn.fuse(self.input_layernorm)
        return attend, self.mlp.fuse(self.post_attention_layernorm)


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

    def enter(self, x: Tensor) -> Tensor:
        """The identity."""
        return x

    def branches(self, length: int) -> list[Branch]:
        """Attention and MLP of every block."""
        cos, sin = self.rope(0, length)  # (T, 1, d)
        found = []
        for layer, block in enumerate(self._blocks()):
            attention = block.self_attn
            found += [
                Branch(
                    layer,
                    block.input_layernorm,
                    keeping(partial(attention, cos=cos, sin=sin)),
                    ordered=attention.causal,
                    outputs=(attention.o_proj.weight,),
                ),
                Branch(
                    layer,
                    block.post_attention_layernorm,
                    self._fed(block),
                    ordered=False,
                    outputs=block.mlp.outputs(),
                ),
            ]
        return found

    def _fed(self, block: Block) -> Run:
        return keeping(block.mlp)

    def leave(self, x: Tensor) -> Tensor:
        """The final norm."""
        return self.norm(x)

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
        if (fused := self._fused(x, state)) is not None:
            return self._fused_step(fused, x, cos, sin, state), state
        for block, cache in zip(self._blocks(), state.layers, strict=True):
            x = block.step(x, cos, sin, cache)
        return self.norm(x), state

    def _fused(self, x: Tensor, state: TransformerState) -> "list[Halves] | None":
        """The kernels that take a symbol, where they may; None where torch does."""
        weight = self.norm.weight
        layers = zip(self._blocks(), state.layers, strict=True)
        if x.dtype != weight.dtype or not all(b.self_attn.takes(x, cache) for b, cache in layers):
            return None
        found = [block.views() for block in self._blocks()]
        halves = [views for views in found if views is not None]
        return halves if len(halves) == len(found) else None

    def _fused_step(
        self, fused: "list[Halves]", x: Tensor, cos: Tensor, sin: Tensor, state: TransformerState
    ) -> Tensor:
        """One symbol of one sequence, (1, D) -> (1, D)."""
        from models.kernels.compiled import first_rows

        row, *turns = first_rows(x, cos[0].to(x.dtype), sin[0].to(x.dtype))
        for (attend, feed), cache in zip(fused, state.layers, strict=True):
            row = feed(attend.half(row, (turns[0], turns[1]), *cache.place()))
        return self.norm(torch.from_numpy(row)[None])

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

        They take single steps, and what the MLP does elementwise in training.
        """
        weight = self.norm.weight
        return next(iter(self._blocks())).self_attn.kernel_on(weight.device, weight.dtype)

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
