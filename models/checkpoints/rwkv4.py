"""BlinkDL's .pth files of RWKV-4, whose names and shapes are our own."""

from pathlib import Path

from models.backbones.rwkv4 import RWKV4
from models.checkpoints import blinkdl
from models.checkpoints.checkpoint import Checkpoint, floats, tensors
from models.checkpoints.rwkv_versions import sizes_of, version_of
from models.objectives.autoregressive import LanguageModel


def read(path: Path, family: str) -> Checkpoint:
    """The checkpoint in a .pth or .safetensors file, in fp32."""
    weights = tensors(path)
    version = version_of(weights)
    if version != "4":
        what = "of another family" if version is None else f"of RWKV-{version}"
        raise ValueError(f"{path} is a checkpoint {what}; model={family} needs one of RWKV-4")
    sides = sizes_of(path, weights, version)
    if sides["A"] != sides["D"]:
        raise ValueError(
            f"{path}: its time mix is {sides['A']} wide; needed is its width, {sides['D']}"
        )
    return Checkpoint(
        path=path,
        arguments={
            "d_model": sides["D"], "n_layers": blinkdl.layers_of(path, weights), "d_ff": sides["F"],
        },
        weights={blinkdl.our_name(name): v for name, v in floats(path, weights).items()},
        start=0,  # the end of a text in BlinkDL's tokenizers, which stands before the next one
        tied=False,
        tokenizer=blinkdl.WORLD_TOKENIZER if sides["V"] == blinkdl.WORLD else None,
    )  # fmt: skip


def write(model: LanguageModel, path: Path) -> None:
    """Write `model` into a .pth file."""
    if not isinstance(model.backbone, RWKV4):
        raise ValueError(f"a .pth of RWKV-4 cannot hold our {type(model.backbone).__name__}")
    blinkdl.save(blinkdl.official(model), path)
