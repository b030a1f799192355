"""Folders of state-spaces/mamba: `MambaLMHeadModel.save_pretrained` and the authors' releases.

A config.json with d_model, n_layer, vocab_size and ssm_cfg, and the tensors under mamba_ssm's own
names in pytorch_model.bin, or in model.safetensors, which is preferred and which we write.
"""

import json
import math
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from models.backbones.mamba import Mamba, MambaMixer
from models.backbones.mamba2 import Mamba2, Mamba2Mixer
from models.backbones.mamba_stack import CHECKPOINT_NAMES
from models.backbones.options import refuse_departures
from models.checkpoints.checkpoint import (
    START,
    START_FILE,
    Checkpoint,
    floats,
    readable,
    start_of,
    tensors,
    writable,
)
from models.checkpoints.huggingface import TOKENIZERS
from models.objectives.autoregressive import LanguageModel

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
SIZES = ("d_state", "d_conv", "headdim", "ngroups", "chunk_size", "dt_rank")  # of ssm_cfg
FAMILIES = {"Mamba1": "mamba", "Mamba2": "mamba2"}


def is_one(folder: Path) -> bool:
    """Whether the configuration in `folder` is of this format."""
    with readable(folder / "config.json"):
        config = json.loads((folder / "config.json").read_text())
    return isinstance(config, dict) and "n_layer" in config and "ssm_cfg" in config


def read(folder: Path, family: str) -> Checkpoint:
    """The checkpoint in `folder`. `ValueError` says what was found and what is needed."""
    with readable(folder / "config.json"):
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    with readable(folder / "config.json"):
        _check_numbers(config)
        ssm = dict(config["ssm_cfg"] or {})
    layer = ssm.pop("layer", "Mamba1")
    found = FAMILIES.get(layer)
    if found != family:
        cure = f"; set model={found}" if found else ""
        raise ValueError(
            f"{folder} holds a checkpoint of {layer} of mamba_ssm; model={family} needs "
            f"{' or '.join(k for k, v in FAMILIES.items() if v == family) or 'another'}{cure}"
        )
    if config.get("attn_layer_idx") or config.get("d_intermediate"):
        raise ValueError(f"{folder} has attention or MLPs between its layers, which ours has not")
    weights = _weights(folder)
    # mamba_ssm rounds the table's rows up.
    multiple = config.get("pad_vocab_size_multiple", 8)
    rows = math.ceil(config["vocab_size"] / multiple) * multiple
    tied = bool(config.get("tie_embeddings", True))
    ours = _to_ours(weights, tied)
    table = ours.get("embedding.weight")
    if table is None:
        raise ValueError(f"{folder} lacks backbone.embedding.weight")
    if table.shape[0] not in (rows, config["vocab_size"]):
        raise ValueError(f"{folder}: the embedding has {table.shape[0]} rows; needed are {rows}")
    ours |= start_of(folder)
    sizes = {"d_model": config["d_model"], "n_layers": config["n_layer"], "norm_eps": 1e-5}
    arguments = {**sizes, **_arguments(layer, config["d_model"], ssm, folder)}
    _hold(folder, arguments, ours)
    return Checkpoint(
        path=folder,
        arguments=arguments,
        weights=ours,
        start=0,  # of GPT-NeoX's tokenizer, which all releases use: <|endoftext|>
        tied=tied,
        tokenizer=str(folder) if any((folder / name).is_file() for name in TOKENIZERS) else None,
    )


def write(model: LanguageModel, folder: Path) -> None:
    """Write `model` into `folder`; the embedding is not padded."""
    backbone = model.backbone
    if not isinstance(backbone, Mamba | Mamba2):
        raise ValueError(f"mamba_ssm has no class that computes our {type(backbone).__name__}")
    refuse_departures(backbone, "mamba_ssm")
    mixer = next(iter(backbone.layers)).mixer
    assert isinstance(mixer, MambaMixer | Mamba2Mixer)
    ssm: dict[str, Any] = {"d_conv": mixer.conv1d.width, "d_state": mixer.d_state}
    ssm["expand"] = mixer.d_inner / backbone.d_model
    if isinstance(mixer, Mamba2Mixer):
        ssm |= {"layer": "Mamba2", "headdim": mixer.headdim, "ngroups": mixer.ngroups}
        ssm["chunk_size"] = mixer.chunk_size
    else:
        ssm |= {"layer": "Mamba1", "dt_rank": mixer.dt_rank}
    if float(ssm["expand"]).is_integer():
        ssm["expand"] = int(ssm["expand"])
    elif isinstance(mixer, Mamba2Mixer):
        raise ValueError(
            f"nheads * headdim is {mixer.d_inner}; mamba_ssm's Mamba2 needs a whole multiple of "
            f"d_model, {backbone.d_model}"
        )
    tied = model.lm_head.weight is model.embedding.weight
    config = {
        "d_model": backbone.d_model, "d_intermediate": 0, "n_layer": len(backbone.layers),
        "vocab_size": model.vocab_size, "ssm_cfg": ssm, "attn_layer_idx": [], "attn_cfg": {},
        "rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True,
        "pad_vocab_size_multiple": 1, "tie_embeddings": tied,
    }  # fmt: skip
    weights = {
        official + name.removeprefix(mine): value.contiguous()
        for name, value in model.state_dict().items()
        for mine, official in CHECKPOINT_NAMES.items()
        if name.startswith(mine) and not (tied and name.startswith("lm_head"))
    }
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(weights, folder / SAFE)
        save_file({START: model.start.weight.detach().contiguous()}, folder / START_FILE)


def _weights(folder: Path) -> dict[str, Tensor]:
    for path in (folder / SAFE, folder / PICKLED):
        if path.is_file():
            return floats(path, tensors(path))
    raise ValueError(f"{folder} holds neither {SAFE} nor {PICKLED}")


def _check_numbers(config: dict[str, Any]) -> None:
    """Every size is a whole number above zero, of the model and of its layers."""
    ssm = config["ssm_cfg"] or {}
    whole = {key: config[key] for key in ("d_model", "n_layer", "vocab_size")}
    whole["pad_vocab_size_multiple"] = config.get("pad_vocab_size_multiple", 8)
    whole |= {key: ssm[key] for key in SIZES if ssm.get(key, "auto") != "auto"}
    for key, value in whole.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"its {key} is {value!r}; needed is a whole number above 0")
    expand = ssm.get("expand", 2)
    if not isinstance(expand, int | float) or not 0 < expand < math.inf:
        raise ValueError(f"its expand is {expand!r}; needed is a number above 0")


def _hold(folder: Path, arguments: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Hold the sizes against the tensors, so that no larger model is built than the file's."""
    layers, width = arguments["n_layers"], arguments["d_model"]
    found = {name.split(".")[2] for name in weights if name.startswith("backbone.layers.")}
    if len(found) != layers:
        raise ValueError(f"{folder}: its n_layer is {layers}; its file holds {len(found)} layers")
    state, conv = arguments["d_state"], arguments["d_conv"]
    inner = arguments.get("d_inner") or arguments["nheads"] * arguments["headdim"]
    needed: dict[str, tuple[int, ...]]
    if "d_inner" in arguments:
        needed = {"A_log": (inner, state), "conv1d.weight": (inner, 1, conv)}
        needed["dt_proj.weight"] = (inner, arguments["dt_rank"])
    else:
        mixed = inner + 2 * arguments["ngroups"] * state
        needed = {"A_log": (arguments["nheads"],), "conv1d.weight": (mixed, 1, conv)}
        needed["norm.weight"] = (inner,)
    shapes = {f"backbone.layers.0.mixer.{name}": shape for name, shape in needed.items()}
    shapes["embedding.weight"] = (weights["embedding.weight"].shape[0], width)
    for name, shape in shapes.items():
        if name not in weights:
            raise ValueError(f"{folder} lacks {name}")
        if (there := tuple(weights[name].shape)) != shape:
            raise ValueError(f"{folder}: {name} is of shape {there}; its config.json needs {shape}")


def _to_ours(weights: dict[str, Tensor], tied: bool) -> dict[str, Tensor]:
    ours = {}
    for name, value in weights.items():
        # The longest prefix: "backbone.embedding." is one of "backbone." too.
        for mine, official in CHECKPOINT_NAMES.items():
            if name.startswith(official):
                ours[mine + name.removeprefix(official)] = value
                break
        else:
            ours[name] = value
    if tied and "embedding.weight" in ours:
        ours["lm_head.weight"] = ours["embedding.weight"]
    return ours


def _arguments(layer: str, d_model: int, ssm: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Of our constructor, with mamba_ssm's defaults."""
    second = layer == "Mamba2"
    d_inner = int(ssm.pop("expand", 2) * d_model)
    arguments = {"d_state": ssm.pop("d_state", 128 if second else 16)}
    arguments["d_conv"] = ssm.pop("d_conv", 4)
    if second:
        headdim = ssm.pop("headdim", 64)
        arguments |= {
            "headdim": headdim, "nheads": d_inner // headdim, "ngroups": ssm.pop("ngroups", 1),
            "chunk_size": ssm.pop("chunk_size", 256),
        }  # fmt: skip
    else:
        rank = ssm.pop("dt_rank", "auto")
        arguments["d_inner"] = d_inner
        arguments["dt_rank"] = math.ceil(d_model / 16) if rank == "auto" else rank
    # Of initialisation alone, or of speed.
    for known in ("dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "use_fast_path",
                  "use_mem_eff_path", "A_init_range"):  # fmt: skip
        ssm.pop(known, None)
    if ssm:
        raise ValueError(f"{folder}: ssm_cfg.{next(iter(ssm))} is none that ours computes")
    return arguments
