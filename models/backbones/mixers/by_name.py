"""The mixers that a hybrid's pattern may name, each of the options that stand under its name.

Besides these it takes the model's width, the number of layers and the norms' epsilon. Widths inside
are multiples of the model's, and every projection onto the residual stream starts at zero.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from models.backbones.gated_delta import GatedDeltaMixer
from models.backbones.mamba import MambaMixer
from models.backbones.mamba2 import Mamba2Mixer
from models.backbones.mamba3 import Mamba3Mixer
from models.backbones.mixers.attention import AttentionMixer
from models.backbones.mixers.interface import Mixer
from models.backbones.mixers.rwkv import RWKVMixer
from models.backbones.sizes import check_sizes, heads_of


def mamba(*, d_model: int, expand: int, **options: Any) -> Mixer:
    """Mamba-1 with `expand` times the model's width inside."""
    check_sizes(expand=expand)
    return MambaMixer(
        d_model=d_model, d_inner=expand * d_model, dt_rank=None, residual_init="zero", **options
    )


def headed(
    kind: Callable[..., Mixer], *, d_model: int, expand: int, headdim: int, **options: Any
) -> Mixer:
    """Mamba-2 or -3 with `expand` times the model's width inside, in heads of `headdim`."""
    check_sizes(expand=expand)
    nheads = heads_of(expand * d_model, headdim, "headdim")
    return kind(d_model=d_model, nheads=nheads, headdim=headdim, residual_init="zero", **options)


MIXERS: dict[str, Callable[..., Mixer]] = {
    "attention": AttentionMixer,
    "mamba": mamba,
    "mamba2": partial(headed, Mamba2Mixer),
    "mamba3": partial(headed, Mamba3Mixer),
    "rwkv": RWKVMixer,
    "gated_delta": partial(GatedDeltaMixer, residual_init="zero"),
}
