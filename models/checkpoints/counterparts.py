"""Which class of transformers computes what a backbone of ours does, and the names of its weights.

transformer: Llama (arXiv:2302.13971), Mistral without its window, or with normalised queries and
keys Qwen3 (arXiv:2505.09388). moe: Mixtral (arXiv:2401.04088) or Qwen3-MoE. mamba, mamba2: theirs.
What a class can do beyond ours (biases, scaled rotations, windows) is refused, not ignored.

Shapes: E experts, F expert width, D width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from models.backbones.mamba import Mamba, MambaMixer
from models.backbones.mamba2 import Mamba2, Mamba2Mixer
from models.backbones.moe import MoE, SparseMLP
from models.backbones.options import refuse_departures
from models.backbones.transformer import Block, Decoder, Transformer

# Types of the library by family of ours.
TYPES = {
    "transformer": ("llama", "mistral", "qwen3"),
    "moe": ("mixtral", "qwen3_moe"),
    "mamba": ("mamba",),
    "mamba2": ("mamba2",),
}
SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "vocab_size", "state_size", "conv_kernel", "chunk_size", "num_heads",
)  # fmt: skip
NO_SYMBOLS = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}


def config_of(backbone: nn.Module, *, vocab_size: int) -> PretrainedConfig:
    """Configuration of the class that computes what `backbone` does, embedding and read-out untied.

    `ValueError` where the library has none.
    """
    refuse_departures(backbone, "transformers")
    shared = {**NO_SYMBOLS, "vocab_size": vocab_size, "tie_word_embeddings": False}
    if isinstance(backbone, MoE):
        return _of_moe(backbone, shared)
    if isinstance(backbone, Transformer):
        return _of_transformer(backbone, shared)
    if isinstance(backbone, Mamba2):
        return _of_mamba2(backbone, shared)
    if isinstance(backbone, Mamba):
        return _of_mamba(backbone, shared)
    raise ValueError(f"transformers has no class that computes our {type(backbone).__name__}")


def _of_decoder(backbone: Decoder) -> dict[str, Any]:
    block = backbone.layers[0]
    assert isinstance(block, Block)
    attention = block.self_attn
    if not backbone.causal:
        raise ValueError("causal=False has no counterpart in transformers; needed is causal=True")
    return {
        "hidden_size": backbone.d_model,
        "num_hidden_layers": len(backbone.layers),
        "num_attention_heads": attention.n_heads,
        "num_key_value_heads": attention.n_kv_heads,
        "head_dim": attention.head_dim,
        "rms_norm_eps": backbone.norm.eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": backbone.rope.theta},
        "max_position_embeddings": 2**20,  # the rotations are computed for any
    }


def _of_transformer(backbone: Transformer, shared: dict[str, Any]) -> PretrainedConfig:
    block = backbone.layers[0]
    assert isinstance(block, Block)
    if not hasattr(block.mlp, "gate_proj"):
        raise ValueError("mlp=relu2 has no counterpart in transformers; needed is mlp=swiglu")
    shared = {**_of_decoder(backbone), **shared}
    shared["intermediate_size"] = block.mlp.gate_proj.out_features
    return Qwen3Config(**shared) if block.self_attn.qk_norm else LlamaConfig(**shared)


def _of_moe(backbone: MoE, shared: dict[str, Any]) -> PretrainedConfig:
    block = backbone.layers[0]
    assert isinstance(block, Block)
    mlp = block.mlp
    assert isinstance(mlp, SparseMLP)
    if mlp.shared is not None:
        raise ValueError(
            "a shared expert has no counterpart in transformers; needed is "
            "model.backbone.d_shared=0"
        )
    width = mlp.experts.gate_proj.shape[0] // mlp.experts.n_experts
    shared = {**_of_decoder(backbone), **shared}
    shared |= {"num_local_experts": mlp.experts.n_experts, "num_experts_per_tok": mlp.top_k}
    if not block.self_attn.qk_norm:
        return MixtralConfig(**shared, intermediate_size=width, sliding_window=None)
    return Qwen3MoeConfig(
        **shared, moe_intermediate_size=width, intermediate_size=width, norm_topk_prob=True
    )


def _of_mamba(backbone: Mamba, shared: dict[str, Any]) -> PretrainedConfig:
    mixer = backbone.layers[0].mixer
    assert isinstance(mixer, MambaMixer)
    return MambaConfig(
        **shared,
        hidden_size=backbone.d_model,
        num_hidden_layers=len(backbone.layers),
        intermediate_size=mixer.d_inner,
        state_size=mixer.d_state,
        conv_kernel=mixer.conv1d.width,
        time_step_rank=mixer.dt_rank,
        layer_norm_epsilon=backbone.norm_f.eps,
    )


def _of_mamba2(backbone: Mamba2, shared: dict[str, Any]) -> PretrainedConfig:
    mixer = backbone.layers[0].mixer
    assert isinstance(mixer, Mamba2Mixer)
    sizes = {
        "hidden_size": backbone.d_model,
        "num_hidden_layers": len(backbone.layers),
        "state_size": mixer.d_state,
        "n_groups": mixer.ngroups,
        "conv_kernel": mixer.conv1d.width,
        "chunk_size": mixer.chunk_size,
        "layer_norm_epsilon": backbone.norm_f.eps,
    }
    config = Mamba2Config(**shared, **sizes, expand=1, num_heads=backbone.d_model, head_dim=1)
    # Set afterwards: it asks for a whole multiple of the width, which its class does not need.
    config.__dict__["expand"] = mixer.d_inner / backbone.d_model
    config.num_heads, config.head_dim = mixer.nheads, mixer.headdim
    return config


def arguments_of(config: PretrainedConfig) -> dict[str, Any]:
    """Of our backbone's constructor. `ValueError` names what ours does not compute."""
    kind = config.model_type
    if kind in (*TYPES["transformer"], *TYPES["moe"]):
        return _arguments_of_decoder(config)
    need(config, use_bias=(False,), use_conv_bias=(True,), hidden_act=("silu", "swish"))
    shared = {
        "d_model": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "d_state": config.state_size,
        "d_conv": config.conv_kernel,
        "norm_eps": config.layer_norm_epsilon,
    }
    if kind == "mamba":
        return {**shared, "d_inner": config.intermediate_size, "dt_rank": config.time_step_rank}
    low, high = config.time_step_limit
    if (low, high) != (0.0, float("inf")):
        raise ValueError(f"its time_step_limit is {low} to {high}; ours computes 0 to infinity")
    return {
        **shared,
        "nheads": config.num_heads,
        "headdim": config.head_dim,
        "ngroups": config.n_groups,
        "chunk_size": config.chunk_size,
    }


def _arguments_of_decoder(config: PretrainedConfig) -> dict[str, Any]:
    need(
        config,
        attention_bias=(False,), mlp_bias=(False,), sliding_window=(None,), hidden_act=("silu",),
        head_dim=(None, config.hidden_size // config.num_attention_heads),
        norm_topk_prob=(True,), decoder_sparse_step=(1,), mlp_only_layers=([], None),
    )  # fmt: skip
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"its rotary positions are of type {rope['rope_type']}, not default")
    arguments = {
        "d_model": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "qk_norm": config.model_type.startswith("qwen3"),
        "rope_theta": rope["rope_theta"],
        "norm_eps": config.rms_norm_eps,
    }
    if config.model_type not in TYPES["moe"]:
        return {**arguments, "mlp": "swiglu", "d_ff": config.intermediate_size}
    moe = config.model_type == "qwen3_moe"
    return {
        **arguments,
        "d_expert": config.moe_intermediate_size if moe else config.intermediate_size,
        "n_experts": config.num_local_experts,
        "top_k": config.num_experts_per_tok,
        "d_shared": 0,
    }


def need(config: Any, **allowed: tuple[Any, ...]) -> None:
    """`ValueError` for a value of a configuration that ours cannot compute."""
    for key, values in allowed.items():
        value = getattr(config, key, values[0])
        if value not in values:
            said = next((allowed for allowed in values if allowed is not None), None)
            raise ValueError(f"its {key} is {value}; ours computes {said}")


def check_sizes(config: PretrainedConfig) -> None:
    """`ValueError` for a size below one, and for a choice of more experts than there are."""
    for key in SIZES:
        value = getattr(config, key, None)
        if isinstance(value, int) and value < 1:
            raise ValueError(f"its {key} is {value}; needed is a whole number above 0")
    chosen, experts = (getattr(config, key, None) for key in ("num_experts_per_tok", "num_experts"))
    if experts and chosen is not None and not 1 <= chosen <= experts:
        raise ValueError(f"its num_experts_per_tok is {chosen}; needed are 1 to {experts}")


def to_library(weights: Mapping[str, Tensor], n_experts: int | None = None) -> dict[str, Tensor]:
    """Weights of a backbone under the names, and in the shapes, of the library's base model."""
    found = dict(weights)
    for gate in [name for name in found if name.endswith("experts.gate_proj")]:
        assert n_experts is not None
        base = gate.removesuffix("gate_proj")
        parts = (found.pop(base + part) for part in ("gate_proj", "up_proj", "down_proj"))
        g, u, d = (part.unflatten(0, (n_experts, -1)) for part in parts)  # (E, F, D)
        found[base + "gate_up_proj"] = torch.cat((g, u), 1)  # (E, 2F, D)
        found[base + "down_proj"] = d.transpose(1, 2).contiguous()  # (E, D, F)
    return found


def from_library(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_library`."""
    found = dict(weights)
    for joined in [name for name in found if name.endswith("experts.gate_up_proj")]:
        base = joined.removesuffix("gate_up_proj")
        gate, up = found.pop(joined).chunk(2, 1)  # (E, F, D)
        found[base + "gate_proj"], found[base + "up_proj"] = gate.flatten(0, 1), up.flatten(0, 1)
        found[base + "down_proj"] = found[base + "down_proj"].transpose(1, 2).flatten(0, 1)
    return {name: value.contiguous() for name, value in found.items()}


def experts_of(backbone: nn.Module) -> int | None:
    """The number of experts of a mixture, else None."""
    mixture = next((m for m in backbone.modules() if isinstance(m, SparseMLP)), None)
    return None if mixture is None else mixture.experts.n_experts
