"""A model that is read from a checkpoint: its sizes, its symbols, its weights."""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.errors import BadInput, one_line
from bench.paths import files_of, matches
from bench.targets import targets

if TYPE_CHECKING:  # torch belongs to the measured process
    from torch import nn

KEY = "model.pretrained"


class Read(Protocol):
    """What was read: arguments of the backbone, and the weights."""

    path: Path
    arguments: dict[str, Any]
    tokenizer: str | None

    @property
    def vocab_size(self) -> int: ...
    def load(self, model: Any) -> None: ...


class Formats(Protocol):
    """The formats of a family; ValueError for what cannot be read or written."""

    def read(self, name: str) -> Read: ...
    def write(self, model: Any, path: Path, form: str | None = None) -> Path: ...


@dataclass(frozen=True)
class Pretrained:
    """A checkpoint by its `name`. Each `load` reads it anew, so that no second copy is held."""

    name: str
    reader: Formats
    arguments: dict[str, Any]
    vocab_size: int
    tokenizer: str | None
    sha256: str

    @classmethod
    def of(cls, name: str, reader: Formats) -> "Pretrained":
        """Read it once. BadInput says what was found and what is needed."""
        read = _read(name, reader)
        # A configuration that comes with weights is data: nothing that it names is built or called.
        for key, target in targets(read.arguments):
            raise BadInput(f"{KEY}={name}: its {key} is {target}; a checkpoint names no classes")
        files = files_of(matches(str(read.path)))
        return cls(
            name, reader, dict(read.arguments), read.vocab_size, read.tokenizer, _hash(files)
        )

    def node(self, model: Mapping[str, Any], kind: str, overrides: Sequence[str]) -> dict[str, Any]:
        """The configuration to instantiate, with the checkpoint's own sizes."""
        given = dict(text.partition("=")[::2] for text in overrides)
        for key, value in self.arguments.items():
            said = given.get(f"model.backbone.{key}", value)
            if str(said) != str(value):
                raise BadInput(
                    f"model.backbone.{key}={said} is not that of {KEY}={self.name}, which has "
                    f"{value}; leave it out"
                )
        node = copy.deepcopy(dict(model["kinds"][kind]["model"]))
        node["backbone"] = {**node["backbone"], **self.arguments}
        node["vocab_size"] = self.vocab_size
        return node

    def task(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The task's configuration with the checkpoint's tokenizer where none was given."""
        if task.get("tokenizer") is not None or (self.tokenizer is None and self.vocab_size == 256):
            return dict(task)
        if self.tokenizer is None:
            raise BadInput(
                f"{KEY}={self.name} has {self.vocab_size} symbols and no tokenizer beside it; "
                "give task.tokenizer=FOLDER, or a tokenizer.json in its folder"
            )
        inner = {**task["task"], "tokenizer": self.tokenizer}
        return {**task, "tokenizer": self.tokenizer, "task": inner}

    def check(self, symbols: int) -> None:
        """Refuse a tokenizer with symbols that the checkpoint does not have."""
        if symbols > self.vocab_size:
            raise BadInput(
                f"the tokenizer has symbols 0 to {symbols - 1} and {KEY}={self.name} 0 to "
                f"{self.vocab_size - 1}; give task.tokenizer=FOLDER with that of the checkpoint"
            )

    def filled(self, build: Callable[[], "nn.Module"]) -> "nn.Module":
        """A model with the checkpoint's weights."""
        model = build()
        try:
            _read(self.name, self.reader).load(model)
        except ValueError as error:
            raise BadInput(f"{KEY}: {one_line(str(error))}") from error
        return model


def _read(name: str, reader: Formats) -> Read:
    try:
        return reader.read(name)
    except ValueError as error:
        raise BadInput(f"{KEY}: {one_line(str(error))}") from error


def _hash(files: Sequence[Path]) -> str:
    """SHA-256 over the contents of all files."""
    total = hashlib.sha256()
    for path in files:
        with open(path, "rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
