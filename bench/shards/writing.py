"""Writes one shard; what the processes of a preparation do."""

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np

from bench.shards.jobs import Job, Source
from bench.store.files import put
from bench.tasks.tokenizer import load_tokenizer

# Letters, digits, spaces, signs of several scripts: another tokenizer makes something else of it.
PROBE = "The  quick brown fox, über 1,234.5 jumps:\n\tdef f(x): return x**2  # Ελλάδα 東京 мир 🙂\n"


class Writer:
    """Shards of `source` in `folder`, symbols of `tokenizer` in train where there is one."""

    def __init__(self, source: Source, folder: Path, tokenizer: str | None, dtype: str) -> None:
        self.source, self.folder, self.tokenizer = source, folder, tokenizer
        self.dtypes = {"train": dtype}
        self._encode: Callable[[str], list[int]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_encode": None}  # each process loads its own

    def write(self, job: Job) -> dict[str, Any]:
        """Write the shard whole or not at all, and describe it.

        `leaves` are the SHA-256 of the text of its pieces. ValueError where the text cannot be
        read or encoded, OSError where the folder cannot be written.
        """
        total, leaves, counts = hashlib.sha256(), [], [0, 0]

        def content() -> Iterator[bytes]:
            for group in self.source.groups(job):
                leaf = hashlib.sha256()
                for text in group:
                    leaf.update(text)
                    data = self._symbols(job, text)
                    total.update(data)
                    counts[0] += len(text)
                    counts[1] += len(data)
                    yield data
                leaves.append(leaf.hexdigest())

        put(self.folder / job.name, content())
        size = np.dtype(self.dtypes.get(job.split, "uint8")).itemsize
        return {
            "name": job.name,
            "split": job.split,
            "bytes": counts[0],
            "symbols": counts[1] // size,
            "sha256": total.hexdigest(),
            "leaves": leaves,
        }

    def _symbols(self, job: Job, text: bytes) -> bytes:
        if self.tokenizer is None or job.split != "train":
            return text
        if self._encode is None:
            self._encode = load(self.tokenizer).encode
        try:
            symbols = self._encode(text.decode())
        except UnicodeDecodeError as error:
            raise ValueError(
                f"--tokenizer needs text in UTF-8, and {job.spans[0].name} holds other bytes; "
                "leave it out for symbols that are bytes"
            ) from error
        return np.array(symbols, np.dtype(self.dtypes["train"]).newbyteorder("<")).tobytes()


def load(tokenizer: str) -> Any:
    """A tokenizer by its name; ValueError where there is none."""
    return load_tokenizer(tokenizer)


def fingerprint(tokenizer: Any) -> str:
    """Which tokenizer it is, wherever it lies: a hash of its size and what it makes of `PROBE`."""
    made = f"{tokenizer.vocab_size} {list(tokenizer.encode(PROBE))}"
    return hashlib.sha256(made.encode()).hexdigest()


_writer: Writer | None = None


def start(writer: Writer) -> None:
    """Make this process one that writes, and that ends when the one that started it does."""
    global _writer
    _writer = writer
    parent = parent_process()
    if parent is not None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent says what there is to say
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def write(job: Job) -> dict[str, Any]:
    """Write a shard in a process that `start` has prepared."""
    assert _writer is not None
    return _writer.write(job)


def _end_with(parent: Any) -> None:
    parent.join()  # a parent that is killed says nothing to those who wait for its next job
    os._exit(1)
