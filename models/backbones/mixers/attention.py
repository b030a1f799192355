"""Attention as a hybrid's mixer: its state grows with the context.

Shapes: B batch, T time, D width.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.backbones.attention import KVCache, Rope
from models.backbones.attention_layer import Attention
from models.backbones.mixers.interface import Mixer
from models.kernels.views import Views

if TYPE_CHECKING:
    from models.kernels.attention_step import FusedAttention


@dataclass
class AttentionState:
    """Keys and values, and the absolute position of the next symbol."""

    cache: KVCache
    position: int = 0


class AttentionMixer(Mixer):
    """Causal grouped-query attention with rotary positions."""

    def __init__(
        self,
        *,
        d_model: int,
        n_layers: int,
        norm_eps: float,
        n_heads: int,
        n_kv_heads: int,
        kernel: str,
        qk_norm: bool,
        rope_theta: float,
    ) -> None:
        super().__init__()
        self.attention = Attention(
            d_model=d_model,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            attention=kernel,
            causal=True,
            qk_norm=qk_norm,
            norm_eps=norm_eps,
            residual_init=0.0,
        )
        self.rope = Rope(self.attention.head_dim, rope_theta)
        self._views = Views(self, self._fuse)

    @property
    def ordered(self) -> bool:  # type: ignore[override]
        """Behind its mask alone."""
        return self.attention.causal

    @property
    def output(self) -> Tensor:
        """The matrix onto the residual stream."""
        return self.attention.o_proj.weight

    def forward(
        self, x: Tensor, state: AttentionState | None
    ) -> tuple[Tensor, AttentionState | None]:
        """(B, T, D) -> (B, T, D)."""
        if state is None:
            return self.attention(x, *self.rope(0, x.shape[1])), None
        cos, sin = self._positions(state, x.shape[1])
        return self.attention(x, cos, sin, state.cache), state

    def step(self, x: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """(B, D) -> (B, D)."""
        cos, sin = self._positions(state, 1)
        fused = self._views() if self.attention.takes(x, state.cache) else None
        if fused is None or x.dtype != self.attention.q_proj.weight.dtype:
            return self.attention.step(x, cos, sin, state.cache), state
        from models.kernels.compiled import first_rows

        row, *turns = first_rows(x, cos[0].to(x.dtype), sin[0].to(x.dtype))
        out = fused.step(row, (turns[0], turns[1]), *state.cache.place())
        return torch.from_numpy(out)[None], state

    def _fuse(self) -> "FusedAttention":
        return self.attention.fuse()

    def _positions(self, state: AttentionState, count: int) -> tuple[Tensor, Tensor]:
        start, state.position = state.position, state.position + count
        return self.rope(start, start + count)

    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> AttentionState:
        """No keys yet."""
        return AttentionState(self.attention.empty_cache(batch, device=device, dtype=dtype))

    def crop(self, state: AttentionState, length: int) -> AttentionState:
        """Keep the last `length` keys; they stay rotated at their absolute positions."""
        state.cache.crop(length)
        return state

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Grows with the context."""
        return self.attention.cache_bytes(batch, context, dtype)

    def flops(self, batch: int, length: int) -> int:
        """Projections and the pairs that are seen."""
        return self.attention.flops(batch, length)

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """The kernel of the parallel form, as it was asked for, and what takes single steps."""
        return self.attention.kernel_on(device, dtype)
