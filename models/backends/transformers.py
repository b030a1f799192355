"""Transformer, MoE, Mamba and Mamba-2 as the transformers library computes them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.utils.import_utils import is_mamba_2_ssm_available

from models.backbones.transformers_decoder import TransformersDecoder
from models.checkpoints.counterparts import config_of, experts_of, to_library

MARKS = ("_no_weight_decay", "no_orthogonal")  # what an optimizer reads of a parameter


class Transformers:
    """Backend of every objective that reads hidden vectors of a causal backbone.

    `types` are those in which the library computes it without the CUDA kernels of mamba_ssm.
    """

    def __init__(self, *, types: Sequence[str]) -> None:
        self.types = tuple(types)

    def problem(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run there, or None: the library's Mamba adds float32 to shorter types."""
        kind = str(dtype).removeprefix("torch.")
        fast = device.type == "cuda" and is_mamba_2_ssm_available()
        if fast or kind in self.types:
            return None
        return f"without CUDA kernels it runs in {' or '.join(self.types)}, not in {kind}"

    def adopt(self, model: nn.Module) -> nn.Module:
        """`model` with the library's class in place of its backbone, on copies of its weights.

        `ValueError` where the library has no class that computes the backbone.
        """
        backbone = model.get_submodule("backbone")
        config = config_of(backbone, vocab_size=1)
        weights = to_library(backbone.state_dict(), experts_of(backbone))
        decoder = TransformersDecoder.of(config, weights)
        ours: dict[str, Any] = dict(backbone.named_parameters())
        for name, parameter in decoder.model.named_parameters():
            for mark in MARKS:
                if hasattr(ours.get(name), mark):
                    setattr(parameter, mark, getattr(ours[name], mark))
        model.backbone = decoder
        return model
