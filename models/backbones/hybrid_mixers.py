"""The families' mixers behind one interface, so that a hybrid can stack them in any order.

Shapes: B batch, T time, D width.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.backbones.attention import KVCache, Rope
from models.backbones.gated_delta import GatedDeltaMixer
from models.backbones.interface import scan_dtype
from models.backbones.mamba import MambaMixer
from models.backbones.mamba2 import Mamba2Mixer
from models.backbones.mamba3 import Mamba3Mixer, check_mamba3
from models.backbones.mamba_stack import Mixer
from models.backbones.rwkv7_time_mix import TimeMix
from models.backbones.transformer import Attention
from models.kernels.available import MAX_HEAD, MAX_STATES, check_kernel


class HybridMixer(nn.Module, ABC):
    """What a layer asks of its mixer, which carries a state of its own kind."""

    @abstractmethod
    def forward(self, x: Tensor, state: Any | None) -> tuple[Tensor, Any | None]:
        """(B, T, D) -> (B, T, D); without a state the sequence begins and none is returned."""

    @abstractmethod
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One symbol, (B, D) -> (B, D)."""

    @abstractmethod
    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> Any:
        """The state before the first symbol."""

    @abstractmethod
    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Bytes of the state after `context` symbols."""

    @abstractmethod
    def flops(self, batch: int, length: int) -> int:
        """FLOPs over `batch` sequences of `length`."""

    @abstractmethod
    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """What computes it there, for a model of that type."""

    def crop(self, state: Any, length: int) -> Any:
        """Forget all but the last `length` symbols; the identity where the state does not grow."""
        return state


@dataclass
class AttentionState:
    """Keys and values, and the absolute position of the next symbol."""

    cache: KVCache
    position: int = 0


class AttentionMixer(HybridMixer):
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
        return self.attention.step(x, cos, sin, state.cache), state

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
        """The kernel that was asked for: torch chooses within it."""
        return self.attention.attention


class StateSpaceMixer(HybridMixer):
    """A mixer whose state does not grow with the context: a Mamba or Gated DeltaNet."""

    def __init__(self, mixer: Mixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor, state: Any | None) -> tuple[Tensor, Any | None]:
        """(B, T, D) -> (B, T, D)."""
        return self.mixer(x, state)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, D) -> (B, D)."""
        return self.mixer.step(x, state)

    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> Any:
        """Nothing seen."""
        return self.mixer.init_state(batch, device=device, dtype=dtype)

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Whatever the context."""
        return self.mixer.state_bytes(batch, dtype)

    def flops(self, batch: int, length: int) -> int:
        """FLOPs of all symbols."""
        return batch * length * self.mixer.flops_per_symbol(length)

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """What computes the recurrence."""
        return self.mixer.kernel_on(device, dtype)


def mamba_mixer(
    *,
    d_model: int,
    n_layers: int,
    norm_eps: float,
    expand: int,
    d_state: int,
    d_conv: int,
    kernel: str,
) -> StateSpaceMixer:
    """Mamba-1 with `expand` times the model's width inside; step sizes of rank D / 16."""
    _check(expand=expand, d_state=d_state, d_conv=d_conv)
    check_kernel(kernel, "d_state", d_state, MAX_STATES)
    mixer = MambaMixer(
        d_model=d_model,
        d_inner=expand * d_model,
        d_state=d_state,
        d_conv=d_conv,
        dt_rank=math.ceil(d_model / 16),
        kernel=kernel,
        residual_init="zero",
        n_layers=n_layers,
    )
    return StateSpaceMixer(mixer)


def mamba2_mixer(
    *,
    d_model: int,
    n_layers: int,
    norm_eps: float,
    expand: int,
    headdim: int,
    d_state: int,
    ngroups: int,
    d_conv: int,
    chunk_size: int,
    kernel: str,
) -> StateSpaceMixer:
    """Mamba-2 with `expand` times the model's width inside, in heads of `headdim`."""
    _check(expand=expand, headdim=headdim, d_state=d_state, ngroups=ngroups, d_conv=d_conv,
           chunk_size=chunk_size)  # fmt: skip
    nheads, rest = divmod(expand * d_model, headdim)
    if rest or nheads % ngroups:
        raise ValueError(
            f"mamba2.headdim is {headdim} and ngroups {ngroups}; expand * d_model = "
            f"{expand * d_model} has to be a multiple of their product"
        )
    check_kernel(kernel, "d_state", d_state, MAX_STATES)
    mixer = Mamba2Mixer(
        d_model=d_model,
        nheads=nheads,
        headdim=headdim,
        d_state=d_state,
        ngroups=ngroups,
        d_conv=d_conv,
        chunk_size=chunk_size,
        norm_eps=norm_eps,
        kernel=kernel,
        residual_init="zero",
        n_layers=n_layers,
    )
    return StateSpaceMixer(mixer)


def mamba3_mixer(
    *,
    d_model: int,
    n_layers: int,
    norm_eps: float,
    expand: int,
    headdim: int,
    d_state: int,
    ngroups: int,
    rope_fraction: float,
    mimo_rank: int,
    chunk_size: int,
    kernel: str,
) -> StateSpaceMixer:
    """Mamba-3 with `expand` times the model's width inside, in heads of `headdim`."""
    _check(expand=expand, headdim=headdim)
    nheads, rest = divmod(expand * d_model, headdim)
    if rest:
        raise ValueError(
            f"mamba3.headdim is {headdim}; it has to divide expand * d_model, {expand * d_model}"
        )
    check_mamba3(
        nheads=nheads, headdim=headdim, d_state=d_state, ngroups=ngroups,
        rope_fraction=rope_fraction, mimo_rank=mimo_rank, chunk_size=chunk_size, kernel=kernel,
    )  # fmt: skip
    mixer = Mamba3Mixer(
        d_model=d_model,
        nheads=nheads,
        headdim=headdim,
        d_state=d_state,
        ngroups=ngroups,
        rope_fraction=rope_fraction,
        mimo_rank=mimo_rank,
        chunk_size=chunk_size,
        norm_eps=norm_eps,
        kernel=kernel,
        residual_init="zero",
        n_layers=n_layers,
    )
    return StateSpaceMixer(mixer)


def gated_delta_mixer(
    *,
    d_model: int,
    n_layers: int,
    norm_eps: float,
    num_k_heads: int,
    num_v_heads: int,
    head_k_dim: int,
    head_v_dim: int,
    conv_kernel_size: int,
    chunk_size: int,
    kernel: str,
) -> StateSpaceMixer:
    """Gated DeltaNet, whose heads and their widths are free of the model's."""
    _check(num_k_heads=num_k_heads, num_v_heads=num_v_heads, head_k_dim=head_k_dim,
           head_v_dim=head_v_dim, chunk_size=chunk_size)  # fmt: skip
    if num_v_heads % num_k_heads:
        raise ValueError(
            f"gated_delta.num_v_heads is {num_v_heads}; it has to be a multiple of num_k_heads, "
            f"{num_k_heads}"
        )
    check_kernel(kernel, "head_v_dim", head_v_dim, MAX_HEAD)
    if kernel == "numba" and head_k_dim != head_v_dim:
        raise ValueError(
            f"kernel=numba: head_k_dim is {head_k_dim} and head_v_dim {head_v_dim}, and it needs "
            "them equal, or set kernel=auto or kernel=torch"
        )
    mixer = GatedDeltaMixer(
        d_model=d_model,
        num_k_heads=num_k_heads,
        num_v_heads=num_v_heads,
        head_k_dim=head_k_dim,
        head_v_dim=head_v_dim,
        conv_kernel_size=conv_kernel_size,
        chunk_size=chunk_size,
        norm_eps=norm_eps,
        kernel=kernel,
        residual_init="zero",
        n_layers=n_layers,
    )
    return StateSpaceMixer(mixer)


class TimeMixState(NamedTuple):
    """The last input, which the token shift mixes in, and the matrix state."""

    last: Tensor  # (B, D)
    wkv: Tensor  # (B, H, N, N), at least fp32


class RWKVMixer(HybridMixer):
    """The time mix of RWKV-7; initialised as that of a first layer."""

    def __init__(
        self,
        *,
        d_model: int,
        n_layers: int,
        norm_eps: float,
        head_size: int,
        decay_rank: int,
        rate_rank: int,
        gate_rank: int,
        chunk: int,
        kernel: str,
    ) -> None:
        super().__init__()
        _check(head_size=head_size, decay_rank=decay_rank, rate_rank=rate_rank,
               gate_rank=gate_rank)  # fmt: skip
        if d_model % head_size:
            raise ValueError(f"rwkv.head_size is {head_size}; it has to divide d_model, {d_model}")
        check_kernel(kernel, "head_size", head_size, MAX_HEAD)
        self.time_mix = TimeMix(
            d_model=d_model,
            head_size=head_size,
            layer=0,
            n_layers=n_layers,
            decay_rank=decay_rank,
            rate_rank=rate_rank,
            value_rank=1,  # of no use in a first layer
            gate_rank=gate_rank,
            chunk=chunk,
            kernel=kernel,
        )
        self.d_model, self.head_size = d_model, head_size

    def forward(self, x: Tensor, state: TimeMixState | None) -> tuple[Tensor, TimeMixState | None]:
        """(B, T, D) -> (B, T, D)."""
        before = state or self.init_state(x.shape[0], device=x.device, dtype=x.dtype)
        mixed, _, wkv = self.time_mix(x, before.last, None, before.wkv)
        if state is None:
            return mixed, None
        # A copy: a view of the last position would keep the inputs of the whole context alive.
        return mixed, TimeMixState(x[:, -1].clone(), wkv)

    def step(self, x: Tensor, state: TimeMixState) -> tuple[Tensor, TimeMixState]:
        """(B, D) -> (B, D)."""
        mixed, _, wkv = self.time_mix(x.unsqueeze(1), state.last, None, state.wkv)
        return mixed.squeeze(1), TimeMixState(x, wkv)

    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> TimeMixState:
        """Zeros; the matrix state stays in fp32 under 16-bit dtypes."""
        wide = scan_dtype(dtype)
        N = self.head_size
        shape = (batch, self.d_model // N, N, N)
        return TimeMixState(
            torch.zeros(batch, self.d_model, device=device, dtype=dtype),
            torch.zeros(shape, device=device, dtype=wide),
        )

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Whatever the context."""
        wide = scan_dtype(dtype)
        return batch * self.d_model * (dtype.itemsize + self.head_size * wide.itemsize)

    def flops(self, batch: int, length: int) -> int:
        """Projections and the recurrence."""
        return self.time_mix.flops(batch, length)

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """What computes the recurrence."""
        return self.time_mix.kernel_on(device, dtype)


def _check(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; it has to be at least 1")


# Each takes the width, the number of layers and the norms' epsilon besides its own options.
MIXERS: dict[str, Callable[..., HybridMixer]] = {
    "attention": AttentionMixer,
    "mamba": mamba_mixer,
    "mamba2": mamba2_mixer,
    "mamba3": mamba3_mixer,
    "rwkv": RWKVMixer,
    "gated_delta": gated_delta_mixer,
}
