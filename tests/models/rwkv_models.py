"""Small RWKV-4 to 7 that the rwkv package runs, from files that are made here."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.backends.rwkv_model import RWKVModel
from models.checkpoints.rwkv_files import RWKVCheckpoint, RWKVFiles
from tests.rwkv_files import Weights, rwkv_file

VOCAB = 41
# Of logits whose standard deviation is about one, in fp32 against float64.
CLOSE = {"atol": 5e-5, "rtol": 1e-5}


def built(checkpoint: RWKVCheckpoint) -> RWKVModel:
    model = RWKVModel(vocab_size=checkpoint.vocab_size, backbone=checkpoint.arguments)
    checkpoint.load(model)
    return model.eval()


def loaded(folder: Path, version: str, **options: int) -> RWKVModel:
    return built(RWKVFiles().read(str(rwkv_file(folder / "rwkv.pth", version, **options))))


MADE: dict[tuple[Any, ...], RWKVModel] = {}


def made(folder: Path, version: str, **options: int) -> RWKVModel:
    """`loaded`, once a kind of file: that compiles for a second. The file is written each time."""
    kind = (version, *options.items())
    if kind not in MADE:
        MADE[kind] = loaded(folder, version, **options)
    rwkv_file(folder / "rwkv.pth", version, **options)
    return MADE[kind]


def tokens(length: int = 29, rows: int = 2) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(2))


def saved(folder: Path, weights: Weights) -> Path:
    path = folder / "rwkv.pth"
    torch.save(weights, path)
    return path
