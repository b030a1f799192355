"""Files of RWKV-4 to 7 for the `rwkv` package: checked here, run there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.backends.rwkv_library import installed
from models.backends.rwkv_model import RWKVModel
from models.checkpoints import blinkdl
from models.checkpoints.checkpoint import readable
from models.checkpoints.formats import located
from models.checkpoints.rwkv_versions import UNUSED, layers_of, sizes_of, version_of

# Of the models that were trained on the Pile; the package calls it by the first name.
BESIDE = ("20B_tokenizer.json", "tokenizer.json")
# The package finds the version as it goes through the names, so these come first.
MARKS = ("time_maa", "ln_x", "gate.weight")
TABLE = "emb.weight"


@dataclass(frozen=True)
class RWKVCheckpoint:
    """`arguments` tell what the file is of; `start` is read before a text."""

    path: Path
    arguments: dict[str, Any]
    weights: dict[str, Tensor]
    vocab_size: int
    start: int
    tokenizer: str | None

    def load(self, model: RWKVModel) -> None:
        """Hand the package the weights."""
        with readable(self.path):
            model.fill(self.weights, self.start)


class RWKVFiles:
    """The reader of `model=rwkv_package`; it writes nothing."""

    def read(self, name: str) -> RWKVCheckpoint:
        """The checkpoint at a path or of that name on the hub; `ValueError` where there is none."""
        if not installed():
            raise ValueError("model=rwkv_package needs the rwkv package: pip install rwkv")
        path = _file(located(name))
        weights = blinkdl.tensors(path)
        version = version_of(weights)
        if version is None or TABLE not in weights:
            raise ValueError(
                f"{path} is a checkpoint of another family; needed is one of RWKV-4, 5, 6 or 7"
            )
        start = weights.pop(blinkdl.START, None)
        sides = sizes_of(path, weights, version)
        for unused in UNUSED:
            weights.pop(unused, None)
        rows = sides["V"]
        if start is not None:  # our own files: one more row of the table
            weights[TABLE] = torch.cat([weights[TABLE], start.to(weights[TABLE].dtype)])
        return RWKVCheckpoint(
            path=path,
            arguments={
                "version": version,
                "d_model": sides["D"],
                "n_layers": layers_of(weights),
                "n_heads": sides.get("H"),
                "d_ff": sides["F"],
            },
            weights=dict(sorted(weights.items(), key=lambda item: not _marks(item[0]))),
            vocab_size=rows,
            # Else the end of a text in BlinkDL's tokenizers, which stands before the next one.
            start=0 if start is None else rows,
            tokenizer=blinkdl.WORLD_TOKENIZER if rows == blinkdl.WORLD else _beside(path, rows),
        )

    def write(self, model: Any, path: Path, form: str | None = None) -> Path:
        """Always a `ValueError`."""
        raise ValueError("model=rwkv_package trains nothing; its checkpoint is the file it read")


def _marks(name: str) -> bool:
    return any(mark in name for mark in MARKS)


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted(found for kind in ("*.pth", "*.safetensors") for found in path.glob(kind))
    if len(files) != 1:
        raise ValueError(f"{path} holds {len(files)} files .pth or .safetensors; name one of them")
    return files[0]


def _beside(path: Path, rows: int) -> str | None:
    """A tokenizer in the file's folder; models of bytes have none."""
    there = (path.parent / name for name in BESIDE)
    return next((str(file) for file in there if file.is_file() and rows != 256), None)
