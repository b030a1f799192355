"""Language modelling on bytes, scored in bits per byte.

B batch, T bytes of a window (`context`), N windows of a split, V symbols: 256, or a tokenizer's.

Every model sees the same windows: the split cut from its first byte into `context` bytes, the
last partial window dropped, nothing carried from one to the next, each byte predicted once (the
first one of a window from nothing). Carrying the state over windows is a score of its own. With a
tokenizer the symbols are its own and the score stays bits per byte (bench/tasks/tokenizer.py).
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from bench.tasks.base import SPLITS, Batch, DataId, check_positive, check_split
from bench.tasks.corpus import CORPORA, Corpus
from bench.tasks.language import LanguageTask, as_batch
from bench.tasks.sources import from_hub, from_path
from bench.tasks.splits import check_shares
from bench.tasks.tokenizer import characters, load_tokenizer


class TextTask(LanguageTask):
    """Windows of `context` bytes of a built-in corpus, of files (`path`) or of a `hub` data set."""

    def __init__(
        self,
        *,
        corpus: str | None,
        context: int,
        vocab_size: int,
        shares: Sequence[float],
        path: str | None,
        hub: str | None,
        hub_config: str | None,
        hub_column: str,
        tokenizer: str | None,
    ) -> None:
        check_positive("task.context", context)
        if vocab_size != 256:
            raise ValueError(
                f"task.vocab_size={vocab_size} is not that of bytes; allowed is 256, and a "
                "tokenizer brings its own"
            )
        self.tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)
        self.vocab_size = 256 if self.tokenizer is None else self.tokenizer.vocab_size
        self.context = self.symbols_per_item = context
        source = load(corpus, shares, path, hub, hub_config, hub_column)
        for split, part in source.parts.items():
            if len(part) < context:
                key = "task.path" if path else "task.hub" if hub else "task.corpus"
                raise ValueError(
                    f"{key}={path or hub or corpus} is too short: its {split} part has {len(part)} "
                    f"bytes and one context (task.context={context}) is needed; allowed is a "
                    f"longer text or a shorter task.context"
                )
        self.parts = {s: np.frombuffer(source.parts[s], dtype=np.uint8) for s in SPLITS}
        self.data = DataId(
            id=source.id,
            sha256=source.sha256,
            sizes={s: len(part) for s, part in self.parts.items()},
            notes=dict(source.notes) | {"items": f"windows of {context} bytes"},
        )
        if tokenizer is not None:
            self.data.notes["tokenizer"] = f"{self.vocab_size} symbols"

    def windows(self, split: str) -> np.ndarray:
        """All windows of a split, (N, T) uint8; the last partial one is dropped."""
        check_split(split)
        part = self.parts[split]
        count = len(part) // self.context
        return part[: count * self.context].reshape(count, self.context)  # (N, T)

    @functools.cache  # noqa: B019 (the task lives as long as its process)
    def symbols(self, split: str) -> np.ndarray:
        """All symbols of a split in order: its bytes, or those of the tokenizer."""
        part = self.parts[split]
        if self.tokenizer is None:
            return part
        [text] = characters(part, len(part))
        found = np.array(self.tokenizer.encode(text), dtype=np.int32)
        if len(found) < self.context:
            raise ValueError(
                f"task.context={self.context} is too long: the {split} part has {len(found)} "
                "symbols of this tokenizer; allowed is a longer text or a shorter task.context"
            )
        return found

    def beginning(self, split: str, count: int) -> np.ndarray:
        """The first `count` symbols of a split, or all where it has fewer."""
        return self.symbols(split)[:count]

    def batches(self, split: str, batch_size: int, seed: int) -> Iterator[Batch]:
        """Shuffled windows without end; each epoch cuts them at another random offset."""
        check_split(split)
        check_positive("batch_size", batch_size)
        return self._batches(self.symbols(split), batch_size, np.random.default_rng(seed))

    def _batches(
        self, part: np.ndarray, batch_size: int, rng: np.random.Generator
    ) -> Iterator[Batch]:
        span = np.arange(self.context)
        pending = np.empty(0, dtype=np.int64)
        while True:
            while len(pending) < batch_size:
                first = rng.integers(min(self.context, len(part) - self.context + 1))
                starts = np.arange(first, len(part) - self.context + 1, self.context)
                pending = np.concatenate([pending, rng.permutation(starts)])
            starts, pending = pending[:batch_size], pending[batch_size:]
            yield as_batch(part[starts[:, None] + span])  # (B, T)


def load(
    corpus: str | None,
    shares: Sequence[float],
    path: str | None,
    hub: str | None,
    hub_config: str | None,
    hub_column: str,
) -> Corpus:
    """The corpus that the configuration means; `path` and `hub` go before the built-in one."""
    shares = check_shares(shares)
    if path and hub:
        raise ValueError(f"task.path={path} and task.hub={hub} exclude each other; give one")
    if path:
        return from_path(path, shares)
    if hub:
        return from_hub(hub, hub_config, hub_column, shares)
    if corpus is None:
        raise ValueError(
            "task.path=null: this task brings no data of its own; allowed is task.path=FILE, "
            "FOLDER or GLOB, or task.hub=NAME (see the description of the task)"
        )
    if corpus not in CORPORA:
        raise ValueError(
            f"task.corpus={corpus} is unknown; allowed are {', '.join(CORPORA)}, or task.path=FILE"
        )
    return CORPORA[corpus](shares)
