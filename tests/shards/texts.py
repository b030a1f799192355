"""Small texts, and folders of shards made of them."""

from pathlib import Path
from typing import Any

import numpy as np

from bench.prepare import main
from bench.shards.files import Files
from bench.shards.index import Index
from bench.shards.jobs import PIECE
from bench.shards.preparing import prepare
from bench.tasks.splits import SPLITS
from bench.tasks.stream import StreamTask

LINE = 16  # bytes
SHARES = (0.8, 0.1, 0.1)


def lines(count: int, seed: int = 0) -> bytes:
    """Lines of `LINE` bytes, none twice, so that a cut at a multiple of it is a line's end."""
    letters = np.random.default_rng(seed).integers(97, 123, size=(count, LINE), dtype=np.uint8)
    letters[:, -1] = ord("\n")
    return letters.tobytes()


def write_lines(path: Path, count: int, seed: int = 0) -> bytes:
    data = lines(count, seed)
    path.write_bytes(data)
    return data


def prepared(folder: Path, path: Path, **changes: Any) -> Index:
    """What the command does, in this process."""
    shares = changes.pop("shares", SHARES)
    values: dict[str, Any] = {"tokenizer": None, "shard_bytes": PIECE, "workers": 1}
    values |= {"shares": shares, "say": lambda line: None} | changes
    return prepare(Files(str(path), shares), folder, **values)


def part(folder: Path, split: str) -> bytes:
    """All of a split, as `cat` would join its shards."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob(f"{split}-*.bin")))


def parts(folder: Path) -> dict[str, bytes]:
    return {split: part(folder, split) for split in SPLITS}


def stream_task(folder: Path, **changes: Any) -> StreamTask:
    """The task of `configs/task/stream.yaml`, some keys changed."""
    keys: dict[str, Any] = {
        "path": str(folder), "context": 32, "vocab_size": 256, "tokenizer": None, "workers": 0,
        "scored": 4096,
    }  # fmt: skip
    return StreamTask(**(keys | changes))


def command(*words: object) -> int:
    """`python -m bench.prepare WORDS` in this process; its exit code."""
    return main([str(word) for word in words])
