"""The families' mixers behind one interface, so that a hybrid can stack them in any order."""

from collections.abc import Callable
from functools import partial

from models.backbones.mamba2 import Mamba2Mixer
from models.backbones.mamba3 import Mamba3Mixer
from models.backbones.mixers.attention import AttentionMixer
from models.backbones.mixers.interface import HybridMixer
from models.backbones.mixers.rwkv import RWKVMixer
from models.backbones.mixers.state_space import gated_delta_mixer, headed_mixer, mamba_mixer

__all__ = ["MIXERS", "HybridMixer"]

# Each takes the width, the number of layers and the norms' epsilon besides its own options.
MIXERS: dict[str, Callable[..., HybridMixer]] = {
    "attention": AttentionMixer,
    "mamba": mamba_mixer,
    "mamba2": partial(headed_mixer, Mamba2Mixer),
    "mamba3": partial(headed_mixer, Mamba3Mixer),
    "rwkv": RWKVMixer,
    "gated_delta": gated_delta_mixer,
}
