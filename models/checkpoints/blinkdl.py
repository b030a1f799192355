"""BlinkDL's .pth files of RWKV-7: one dictionary of tensors, sizes read from their shapes."""

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from models.backbones.options import refuse_departures
from models.backbones.rwkv7 import CHECKPOINT_NAMES, RWKV7
from models.checkpoints.checkpoint import START, Checkpoint, floats, tensors, writable
from models.objectives.autoregressive import LanguageModel

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
    weights = floats(path, weights)
    layers = layers_of(path, weights)

    def sides(name: str, count: int = 2) -> tuple[int, ...]:
        if name not in weights:
            raise ValueError(f"{path} lacks {name}")
        shape = tuple(weights[name].shape)
        if len(shape) != count:
            raise ValueError(f"{path}: {name} is of shape {shape}; needed are {count} sides")
        return shape

    def rank(layer: int, name: str) -> int:
        return sides(f"blocks.{layer}.att.{name}1")[1]

    rows, width = sides("emb.weight")
    heads, size = sides("blocks.0.att.r_k")
    if heads * size != width:
        raise ValueError(f"{path}: {heads} heads of {size} do not make up its width of {width}")
    arguments = {
        "d_model": width,
        "n_layers": layers,
        "head_size": size,
        "d_ff": sides("blocks.0.ffn.key.weight")[0],
        "decay_rank": rank(0, "w"),
        "rate_rank": rank(0, "a"),
        "gate_rank": rank(0, "g"),
        "value_rank": rank(1, "v") if layers > 1 else 1,
    }
    ours = {our_name(name): value for name, value in weights.items()}
    for unused in ("v0", "v1", "v2"):
        ours.pop(f"backbone.blocks.0.att.{unused}", None)
    return Checkpoint(
        path=path,
        arguments=arguments,
        weights=ours,
        start=0,  # the end of a text in BlinkDL's tokenizers, which stands before the next one
        tied=False,
        tokenizer=WORLD_TOKENIZER if rows == WORLD else None,
    )


def layers_of(path: Path, names: Iterable[str]) -> int:
    """The number of blocks; `ValueError` where their numbers are not 0, 1, 2 and so on."""
    matches = (re.match(r"blocks\.(\d+)\.", name) for name in names)
    found = {int(match[1]) for match in matches if match}
    if lacking := set(range(len(found))) - found:
        raise ValueError(f"{path} holds block {max(found)} and no block {min(lacking)}")
    return len(found)


def write(model: LanguageModel, path: Path) -> None:
    """Write `model` into a .pth file."""
    save(named(model), path)


def save(weights: dict[str, Tensor], path: Path) -> None:
    """Write tensors by name into a file."""
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:  # Python says why a disk takes no more, torch does not
            torch.save(weights, file)


def named(model: LanguageModel) -> dict[str, Tensor]:
    """Copies of `model`'s tensors under BlinkDL's names, and `START`.

    Block 0's unused tensors are included, as BlinkDL's files have them.
    """
    if not isinstance(model.backbone, RWKV7):
        raise ValueError(f"a .pth of RWKV-7 cannot hold our {type(model.backbone).__name__}")
    refuse_departures(model, "BlinkDL's .pth files")
    weights = official(model)
    width, rank = model.backbone.d_model, 1
    if "blocks.1.att.v1" in weights:
        rank = weights["blocks.1.att.v1"].shape[1]
    for name, shape in {"v0": (1, 1, width), "v1": (width, rank), "v2": (rank, width)}.items():
        weights.setdefault(f"blocks.0.att.{name}", torch.zeros(shape))
    return weights


def official(model: LanguageModel) -> dict[str, Tensor]:
    """Copies of the tensors that `model` has, under BlinkDL's names, and `START`."""
    weights = {START: model.start.weight.detach().clone()}
    for name, value in model.state_dict().items():
        for mine, theirs in CHECKPOINT_NAMES.items():
            if name.startswith(mine):
                weights[theirs + name.removeprefix(mine)] = value.clone()
    return weights


def our_name(name: str) -> str:
    """What we call BlinkDL's tensor of that name."""
    if name == START:
        return name
    for mine in ("embedding.", "lm_head."):
        if name.startswith(CHECKPOINT_NAMES[mine]):
            return mine + name.removeprefix(CHECKPOINT_NAMES[mine])
    return f"backbone.{name}"
