"""A language model as it was read from files, whatever their format."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.objectives.autoregressive import LanguageModel

# Beside the family's own files: what a start symbol of ours has no place for in them.
START_FILE = "start.safetensors"
START = "start.weight"  # the one tensor in it, and its name in a .pth of ours
# What libraries raise for a file that was cut off or is of another kind.
FAULTS = (
    ValueError, OSError, SafetensorError, RuntimeError, EOFError, LookupError, ImportError,
    AttributeError, TypeError, ArithmeticError, StrictDataclassError,
)  # fmt: skip
# What libraries raise where a file cannot be written, as on a full disk.
UNWRITTEN = (OSError, SafetensorError, RuntimeError)


@dataclass(frozen=True)
class Checkpoint:
    """`arguments` of the backbone's constructor, and weights under the names of `LanguageModel`.

    Of `weights`, `start.weight` may be missing: then the symbol `start` is read first, as the
    model was trained. `tokenizer` is the folder or file that holds it, None where there is none.
    """

    path: Path
    arguments: dict[str, Any]
    weights: dict[str, Tensor]
    start: int
    tied: bool
    tokenizer: str | None

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self.weights["embedding.weight"].shape[0]

    def load(self, model: LanguageModel) -> None:
        """Give `model` the weights. `ValueError` names tensors that are missing or do not fit."""
        weights = dict(self.weights)
        weights.setdefault(START, weights["embedding.weight"][self.start : self.start + 1])
        own = model.state_dict()
        missing = sorted(own.keys() - weights.keys())
        unknown = sorted(weights.keys() - own.keys())
        if missing or unknown:
            what = f"lacks {some(missing)}" if missing else f"holds {some(unknown)}, unknown here"
            raise ValueError(f"{self.path} {what}")
        for name, value in own.items():
            if value.shape != weights[name].shape:
                raise ValueError(
                    f"{self.path}: {name} is of shape {tuple(weights[name].shape)}; "
                    f"needed is {tuple(value.shape)}"
                )
        model.load_state_dict(weights)
        if self.tied:
            model.lm_head.weight = model.embedding.weight


def some(names: list[str]) -> str:
    """The first names of a list that may be long."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Within it, what a damaged or foreign file makes libraries say becomes one `ValueError`."""
    try:
        yield
    except FAULTS as error:
        said = first_line(error)
        said = f"unknown name {said}" if isinstance(error, KeyError) else said
        raise ValueError(f"{path} cannot be read: {said}") from error


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Within it, what libraries say of a disk that takes no more becomes one `ValueError`."""
    try:
        yield
    except UNWRITTEN as error:
        raise ValueError(f"{path} cannot be written: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What a library said, without the advice that follows."""
    said, *rest = [line.strip() for line in str(error).strip().splitlines()] or [
        type(error).__name__
    ]
    if said.endswith(":") and rest:  # a heading
        said = f"{said} {rest[0]}"
    return said.rstrip(".")


def floats(path: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """`weights` in fp32; `ValueError` for those that are no floats, which are no weights."""
    for name, value in weights.items():
        if not value.is_floating_point():
            raise ValueError(f"{path}: {name} is of {value.dtype}; needed are floats")
    return {name: value.float() for name, value in weights.items()}


def start_of(folder: Path) -> dict[str, Tensor]:
    """The start symbol of ours that lies beside a family's own files, where there is one."""
    path = folder / START_FILE
    if not path.is_file():
        return {}
    found = tensors(path)
    if found.keys() != {START}:
        raise ValueError(f"{path} holds {some(sorted(found)) or 'nothing'}; needed is {START}")
    return floats(path, found)


def tensors(path: Path) -> dict[str, Tensor]:
    """What a .safetensors file, or a pickled one, holds as it is."""
    if path.suffix == ".safetensors":
        with readable(path):
            return dict(load_file(path))
    return load_pickled(path)


def load_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .bin file; nothing that it may contain is run (`weights_only`)."""
    with readable(path):
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        # The first of what weights_only refuses; either of plain text, whose letters are taken for
        # a pickle's commands.
        except (pickle.UnpicklingError, LookupError):
            found = None
    if not isinstance(found, dict) or not all(_plain(*item) for item in found.items()):
        raise ValueError(
            f"{path} holds other things than named tensors, or is cut off; needed is a dictionary "
            "of dense tensors that torch.load(weights_only=True) reads"
        )
    return found


def _plain(name: object, value: object) -> bool:
    """Whether an entry is a name and a tensor whose numbers are all there."""
    if not (isinstance(name, str) and isinstance(value, Tensor)):
        return False
    return value.layout is torch.strided and not value.is_meta
