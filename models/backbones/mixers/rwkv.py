"""The time mix of RWKV-7 as a hybrid's mixer: its state is of constant size.

Shapes: B batch, T time, D width, H heads, N head_size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.backbones.interface import scan_dtype
from models.backbones.mixers.interface import Mixer
from models.backbones.rwkv7_time_mix import TimeMix
from models.backbones.sizes import check_sizes, heads_of
from models.kernels.available import MAX_HEAD, check_kernel


class TimeMixState(NamedTuple):
    """The last input, which the token shift mixes in, and the matrix state."""

    last: Tensor  # (B, D)
    wkv: Tensor  # (B, H, N, N), at least fp32


class RWKVMixer(Mixer):
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
        negative_eigenvalues: bool,
        chunk: int,
        kernel: str,
    ) -> None:
        super().__init__()
        check_sizes(decay_rank=decay_rank, rate_rank=rate_rank, gate_rank=gate_rank)
        heads_of(d_model, head_size, "head_size")
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
            negative_eigenvalues=negative_eigenvalues,
            chunk=chunk,
            kernel=kernel,
        )
        self.d_model, self.head_size = d_model, head_size

    @property
    def output(self) -> Tensor:
        """The matrix onto the residual stream."""
        return self.time_mix.output.weight

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
        """What computes the recurrence there, for a model of that type."""
        return self.time_mix.kernel_on(device, dtype)
