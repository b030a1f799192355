"""BlinkDL's .pth files of RWKV-7: one dictionary of tensors, sizes read from their shapes."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.backbones.rwkv7 import CHECKPOINT_NAMES, RWKV7
from models.checkpoints.checkpoint import Checkpoint, load_pickled, readable
from models.objectives.autoregressive import LanguageModel

START = "start.weight"  # the name of our start symbol in such a file
WORLD = 65536  # rows of the tables of the "World" models
WORLD_TOKENIZER = "rwkv_vocab_v20230424"  # the tokenizer that the rwkv package brings


def read(path: Path, family: str) -> Checkpoint:
    """The checkpoint in a .pth or .safetensors file, in fp32."""
    weights = tensors(path)
    if family != "rwkv":
        raise ValueError(f"{path} is a file; model={family} needs a folder with a config.json")
    needed = ("emb.weight", "head.weight", "blocks.0.att.r_k", "blocks.0.ffn.key.weight")
    if lacking := [name for name in needed if name not in weights]:
        older = "blocks.0.att.time_decay" in weights
        what = "of an RWKV before 7" if older else "of another family"
        cure = "; model=rwkv_package runs it" if older else ""
        raise ValueError(
            f"{path} lacks {lacking[0]}: a checkpoint {what}; needed is one of RWKV-7{cure}"
        )
    weights = {name: value.float() for name, value in weights.items()}
    heads, size = weights["blocks.0.att.r_k"].shape
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))

    def rank(layer: int, name: str) -> int:
        at = f"blocks.{layer}.att.{name}1"
        if at not in weights:
            raise ValueError(f"{path} lacks {at}")
        return int(weights[at].shape[1])

    arguments = {
        "d_model": heads * size,
        "n_layers": layers,
        "head_size": size,
        "d_ff": weights["blocks.0.ffn.key.weight"].shape[0],
        "decay_rank": rank(0, "w"),
        "rate_rank": rank(0, "a"),
        "gate_rank": rank(0, "g"),
        "value_rank": rank(1, "v") if layers > 1 else 1,
    }
    ours = {_our_name(name): value for name, value in weights.items()}
    for unused in ("v0", "v1", "v2"):
        ours.pop(f"backbone.blocks.0.att.{unused}", None)
    rows = weights["emb.weight"].shape[0]
    return Checkpoint(
        path=path,
        arguments=arguments,
        weights=ours,
        start=0,  # the end of a text in BlinkDL's tokenizers, which stands before the next one
        tied=False,
        tokenizer=WORLD_TOKENIZER if rows == WORLD else None,
    )


def tensors(path: Path) -> dict[str, Tensor]:
    """What a .pth or .safetensors file holds, as it is."""
    if path.suffix == ".safetensors":
        with readable(path):
            return dict(load_file(path))
    return load_pickled(path)


def write(model: LanguageModel, path: Path) -> None:
    """Write `model` into a .pth file."""
    weights = named(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(weights, path)


def named(model: LanguageModel) -> dict[str, Tensor]:
    """Copies of `model`'s tensors under BlinkDL's names, and `START`.

    Block 0's unused tensors are included, as BlinkDL's files have them.
    """
    if not isinstance(model.backbone, RWKV7):
        raise ValueError(f"a .pth of RWKV-7 cannot hold our {type(model.backbone).__name__}")
    weights: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        for mine, official in CHECKPOINT_NAMES.items():
            if name.startswith(mine):
                weights[official + name.removeprefix(mine)] = value.clone()
    width, rank = model.backbone.d_model, 1
    if "blocks.1.att.v1" in weights:
        rank = weights["blocks.1.att.v1"].shape[1]
    for name, shape in {"v0": (1, 1, width), "v1": (width, rank), "v2": (rank, width)}.items():
        weights.setdefault(f"blocks.0.att.{name}", torch.zeros(shape))
    weights[START] = model.start.weight.detach().clone()
    return weights


def _our_name(name: str) -> str:
    if name == START:
        return name
    for mine in ("embedding.", "lm_head."):
        if name.startswith(CHECKPOINT_NAMES[mine]):
            return mine + name.removeprefix(CHECKPOINT_NAMES[mine])
    return f"backbone.{name}"
