"""The Mambas and Gated DeltaNet as a hybrid's mixers: states of constant size.

Beside the options of its own class a mixer takes the model's width, the number of layers and the
norms' epsilon; widths inside are multiples of the model's.

Shapes: B batch, T time, D width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.backbones.gated_delta import GatedDeltaMixer
from models.backbones.mamba import MambaMixer
from models.backbones.mamba_stack import Mixer
from models.backbones.mixers.interface import HybridMixer
from models.backbones.sizes import check_sizes, heads_of


class StateSpaceMixer(HybridMixer):
    """A mixer whose state does not grow with the context: a Mamba, or Gated DeltaNet."""

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
    *, d_model: int, n_layers: int, norm_eps: float, expand: int, **options: Any
) -> StateSpaceMixer:
    """Mamba-1 with `expand` times the model's width inside."""
    check_sizes(expand=expand)
    mixer = MambaMixer(
        d_model=d_model, d_inner=expand * d_model, dt_rank=None, n_layers=n_layers,
        residual_init="zero", **options,
    )  # fmt: skip
    return StateSpaceMixer(mixer)


def headed_mixer(
    kind: Callable[..., Mixer],
    *,
    d_model: int,
    n_layers: int,
    norm_eps: float,
    expand: int,
    headdim: int,
    **options: Any,
) -> StateSpaceMixer:
    """Mamba-2 or -3 with `expand` times the model's width inside, in heads of `headdim`."""
    check_sizes(expand=expand)
    mixer = kind(
        d_model=d_model, nheads=heads_of(expand * d_model, headdim, "headdim"), headdim=headdim,
        norm_eps=norm_eps, n_layers=n_layers, residual_init="zero", **options,
    )  # fmt: skip
    return StateSpaceMixer(mixer)


def gated_delta_mixer(
    *, d_model: int, n_layers: int, norm_eps: float, **options: Any
) -> StateSpaceMixer:
    """Gated DeltaNet, whose heads and their widths are free of the model's."""
    mixer = GatedDeltaMixer(
        d_model=d_model, norm_eps=norm_eps, n_layers=n_layers, residual_init="zero", **options
    )
    return StateSpaceMixer(mixer)
