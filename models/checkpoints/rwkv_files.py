"""Files of RWKV-4 to 7 for the `rwkv` package: checked here, run there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.backends.rwkv_library import imported, installed
from models.backends.rwkv_library import version as package_version
from models.backends.rwkv_model import RWKVModel
from models.checkpoints import blinkdl
from models.checkpoints.checkpoint import FAULTS, START, first_line, some, tensors
from models.checkpoints.formats import located
from models.checkpoints.rwkv_versions import UNUSED, sizes_of, version_of

BYTES = 256  # rows of the tables of models that need no tokenizer
# Rows of the models that were trained on the Pile, and what their tokenizer is called beside them.
PILE, PILE_TOKENIZER = 50277, "20B_tokenizer.json"
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
        """Hand the package the weights. `ValueError` where it fails, on a file that was checked."""
        imported(seven=model.version == "7")
        try:
            model.fill(self.weights, self.start)
        except FAULTS as error:
            raise ValueError(
                f"the rwkv package {package_version()} fails on {self.path}, which is a whole "
                f"RWKV-{model.version} ({first_line(error)}); pip install --upgrade rwkv"
            ) from error


class RWKVFiles:
    """The reader of `model=rwkv_package`; it writes nothing."""

    def read(self, name: str) -> RWKVCheckpoint:
        """The checkpoint at a path or of that name on the hub; `ValueError` where there is none."""
        if not installed():
            raise ValueError("model=rwkv_package needs the rwkv package: pip install rwkv")
        path = _file(located(name))
        weights = tensors(path)
        version = version_of(weights)
        if version is None:
            raise ValueError(
                f"{path} is no checkpoint of RWKV-4, 5, 6 or 7 under BlinkDL's names of tensors, "
                "which model=rwkv_package needs"
            )
        sides = sizes_of(path, weights, version)
        start = weights.pop(START, None)
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
                "n_layers": blinkdl.layers_of(path, weights),
                "n_heads": sides.get("H"),
                "d_ff": sides["F"],
            },
            weights=dict(sorted(weights.items(), key=lambda item: not _marks(item[0]))),
            vocab_size=rows,
            # Else the end of a text in BlinkDL's tokenizers, which stands before the next one.
            start=0 if start is None else rows,
            tokenizer=_tokenizer(path, rows),
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
    if not files:
        raise ValueError(f"{path} holds no .pth and no .safetensors file")
    if len(files) > 1:
        names = some([file.name for file in files])
        raise ValueError(f"{path} holds {names}; give one of them, such as {files[0]}")
    return files[0]


def _tokenizer(path: Path, rows: int) -> str | None:
    """The package's own for a World model, else one that lies beside the file; bytes need none."""
    if rows == BYTES:
        return None
    if rows == blinkdl.WORLD:
        return blinkdl.WORLD_TOKENIZER
    names = ["tokenizer.json", PILE_TOKENIZER]
    if rows == PILE:  # a folder may hold that of another model too
        names.reverse()
    there = (path.parent / name for name in names)
    return next((str(file) for file in there if file.is_file()), None)
