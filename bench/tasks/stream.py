"""Language modelling on text of any size, from shards that `python -m bench.prepare` wrote.

B batch, T bytes or symbols of a window (`context`), N windows of a split.

What a model is scored on is as in task `text`: windows of `context` bytes, each byte predicted
once, bits per byte. Training shows windows of `context` symbols in an order that seed and position
decide (bench/shards/order.py). Memory does not grow with the text, and where training stopped it
can go on: `Batches.state` and `Batches.resume`.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.shards.index import read
from bench.shards.order import Order
from bench.shards.tokens import Tokens
from bench.shards.verify import verify
from bench.shards.writing import fingerprint
from bench.tasks.base import SPLITS, Batch, DataId, check_positive, check_split
from bench.tasks.language import LanguageTask, as_batch
from bench.tasks.tokenizer import load_tokenizer

BLOCK_SYMBOLS = 1 << 17  # that are read at once: Python's share of the time is then small
BLOCK_WINDOWS = 512  # at most
FITTED_BYTES = 8 << 20  # of train, for plain rivals: about what task `code` has


class Windows:
    """Windows (N, T) of a split from its first byte, read when they are asked for."""

    def __init__(self, part: Tokens, context: int) -> None:
        self.part, self.context = part, context

    def __len__(self) -> int:
        return len(self.part) // self.context

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        numbers = np.asarray(index)
        return self.part.take(numbers.astype(np.int64) * self.context, self.context)


class StreamTask(LanguageTask):
    """Windows of `context` symbols of a prepared folder."""

    def __init__(
        self,
        *,
        path: str | None,
        context: int,
        vocab_size: int,
        tokenizer: str | None,
        workers: int,
        scored: int,
    ) -> None:
        check_positive("task.context", context)
        check_positive("task.scored", scored)
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
            raise ValueError(f"task.workers={workers!r} must be an integer of at least 0")
        if vocab_size != 256:
            raise ValueError(
                f"task.vocab_size={vocab_size} is not that of bytes; allowed is 256, and a "
                "tokenizer brings its own"
            )
        if path is None:
            raise ValueError(
                "task.path=null: this task brings no data of its own; allowed is task.path=FOLDER "
                "of `python -m bench.prepare FOLDER --path TEXT` or --hub NAME"
            )
        folder, key = Path(path).expanduser(), f"task.path={path}"
        index = read(folder, key)
        verify(folder, index, key)
        self.context = self.symbols_per_item = context
        self.workers, self.scored = workers, scored
        self.vocab_size = index.vocab_size
        self._set_tokenizer(index.tokenizer, tokenizer, key)
        tokens = {split: Tokens(folder, index.parts[split]) for split in SPLITS}
        for split, part in tokens.items():
            if len(part) < context:
                raise ValueError(
                    f"{key} is too short: its {split} part has {len(part)} symbols and one context "
                    f"(task.context={context}) is needed; allowed is a longer text, larger shares, "
                    f"or a shorter task.context"
                )
        self.train = tokens["train"]
        self.parts = {split: tokens[split] for split in ("validation", "test")}
        if self.tokenizer is None:
            self.parts["train"] = self.train
        count = sum(len(part.shards) for part in index.parts.values())
        self.data = DataId(
            id=f"{index.name}-{index.sha256[:8]}",
            sha256=index.sha256,
            sizes={split: part.bytes for split, part in index.parts.items()},
            notes={
                "split": index.split,
                "shards": f"{count}, memory-mapped",
                "items": f"windows of {context} bytes, at most {scored} of a part are scored",
            },
        )
        if self.tokenizer is not None:
            self.data.notes["tokenizer"] = f"{self.vocab_size} symbols"

    def _set_tokenizer(self, used: dict[str, str] | None, given: str | None, key: str) -> None:
        """The tokenizer that made the symbols; `given` says where it lies now."""
        self.tokenizer = None
        if used is None:
            if given is not None:
                raise ValueError(
                    f"task.tokenizer={given} did not make {key}, whose symbols are bytes; allowed "
                    f"is a folder prepared with --tokenizer {given}"
                )
            return
        self.tokenizer = load_tokenizer(given or used["name"])
        if fingerprint(self.tokenizer) != used["fingerprint"]:
            raise ValueError(
                f"task.tokenizer={given or used['name']} is not the one that made {key}; allowed "
                f"is that, which was {used['name']}"
            )

    def windows(self, split: str) -> Windows:
        """All windows of a split of bytes, read when they are asked for."""
        check_split(split)
        return Windows(self.parts[split], self.context)

    def beginning(self, split: str, count: int) -> np.ndarray:
        """The first `count` symbols of a split, or all where it has fewer."""
        part = self.train if split == "train" else self.parts[split]
        return np.asarray(part[:count])

    def fitted(self) -> np.ndarray:
        """The first bytes of train, at most `FITTED_BYTES`."""
        if self.tokenizer is None:
            return self.beginning("train", FITTED_BYTES)
        text = self.tokenizer.decode(self.beginning("train", FITTED_BYTES // 4).tolist())
        return np.frombuffer(text.encode(), dtype=np.uint8)

    def batches(self, split: str, batch_size: int, seed: int) -> "Batches":
        """Shuffled windows without end; each epoch cuts them at another random offset."""
        check_split(split)
        check_positive("batch_size", batch_size)
        if split != "train" and self.tokenizer is not None:
            raise ValueError(f"split={split!r} has bytes and no symbols here; allowed is train")
        part = self.train if split == "train" else self.parts[split]
        return Batches(part, self.context, batch_size, seed, self.workers, self.data.sha256)


class Batches(Iterator[Batch]):
    """Windows in the order of a seed; `workers` threads read ahead and change nothing of it.

    Threads and no processes: while the system reads, Python runs on, and nothing has to be sent
    from one process to another.
    """

    shown: int  # windows
    number: int  # of the block that is held; -1: none

    def __init__(
        self, part: Tokens, context: int, batch_size: int, seed: int, workers: int, sha256: str
    ) -> None:
        self.part, self.batch_size, self.workers = part, batch_size, workers
        self.order = Order(len(part), context, seed)
        self.size = min(max(BLOCK_SYMBOLS // context, 1), BLOCK_WINDOWS)  # windows of a block
        self.about = {"seed": seed, "context": context, "sha256": sha256}
        self.pool = ThreadPoolExecutor(workers, "windows") if workers else None
        self._start(0)

    def __next__(self) -> Batch:
        rows = []
        wanted = self.batch_size
        while wanted:
            block, inside = divmod(self.shown, self.size)
            if block != self.number:
                self.number, self.block = block, self._next_block()
            found = self.block[inside : inside + wanted]
            rows.append(found)
            self.shown += len(found)
            wanted -= len(found)
        return as_batch(rows[0] if len(rows) == 1 else np.concatenate(rows))  # (B, T)

    def state(self) -> dict[str, Any]:
        """Where it stands, as plain values: windows shown, and of what."""
        return {**self.about, "windows": self.shown}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; the batch size may be another one."""
        for key, own in self.about.items():
            if state.get(key) != own:
                raise ValueError(
                    f"the state is of {key}={state.get(key)} and this is {key}={own}; "
                    "allowed is a state of the same data, context and seed"
                )
        windows = state.get("windows")
        if type(windows) is not int or windows < 0:
            raise ValueError(f"the state names windows={windows!r}; allowed are whole numbers")
        self._start(windows)

    def _start(self, shown: int) -> None:
        self.shown = shown
        self.number = -1
        self.block = np.empty((0, 0), dtype=np.uint8)
        self.ahead: deque[Future[np.ndarray]] = deque()
        self.asked = shown // self.size  # the next block to be read

    def _next_block(self) -> np.ndarray:
        """The block that follows; others are read meanwhile."""
        if self.pool is None:
            self.asked += 1
            return self._read(self.asked - 1)
        while len(self.ahead) <= self.workers:
            self.ahead.append(self.pool.submit(self._read, self.asked))
            self.asked += 1
        return self.ahead.popleft().result()

    def _read(self, block: int) -> np.ndarray:
        """The windows of a block, (W, T)."""
        starts = self.order.starts(block * self.size, self.size)
        return self.part.take(starts, self.order.context)
