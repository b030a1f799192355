"""Language modelling on bytes, scored in bits per byte.

B batch, T bytes of a window (`context`), N windows of a split, V symbols: 256, or a tokenizer's.

Every model sees the same windows: the split cut from its first byte into `context` bytes, the
last partial window dropped, nothing carried from one to the next, each byte predicted once (the
first one of a window from nothing). Carrying the state over windows is a score of its own. With a
tokenizer the symbols are its own and the score stays bits per byte (bench/tasks/tokenizer.py).
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.tasks.base import (
    SPLITS,
    Baseline,
    Batch,
    DataId,
    Quality,
    check_positive,
    check_split,
    pick,
    quality,
    scoring,
)
from bench.tasks.corpus import CORPORA, Corpus
from bench.tasks.sources import from_hub, from_path
from bench.tasks.tokenizer import Tokenizer, characters, load_tokenizer, window_nats

EVAL_BATCH = 32
STREAM_WINDOWS = 256  # longer splits are carried in several streams side by side


class TextTask:
    """Windows of `context` bytes of a built-in corpus, of files (`path`) or of a `hub` data set."""

    kind = "language"
    unit = "tokens"

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
        [text] = characters(part.tobytes(), len(part))
        found = np.array(self.tokenizer.encode(text), dtype=np.int32)
        if len(found) < self.context:
            raise ValueError(
                f"task.context={self.context} is too long: the {split} part has {len(found)} "
                "symbols of this tokenizer; allowed is a longer text or a shorter task.context"
            )
        return found

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

    def example(self, batch_size: int, length: int | None = None) -> Batch:
        """The first symbols of train, (batch_size, length), repeated where they do not suffice."""
        length = self.context if length is None else length
        check_positive("batch_size", batch_size)
        check_positive("length", length)
        return as_batch(np.resize(self.symbols("train"), (batch_size, length)))

    def evaluate(
        self,
        model: Any,
        split: str,
        device: torch.device | str,
        max_items: int | None = None,
        full: bool = False,
    ) -> Quality:
        """Bits per byte over the windows of `split`; `full` adds the score with carried state."""
        if self.tokenizer is not None:
            return self._evaluate_symbols(model, self.tokenizer, split, device, max_items)
        windows = self.windows(split)
        windows = windows[pick(len(windows), max_items)]
        secondary: dict[str, float] = {}
        notes = {"windows": f"{len(windows)} of {self.context} bytes, last partial one dropped"}
        with scoring(model, device) as device:
            nats, bound = nats_of(model, windows, device)
            if full and hasattr(model, "prefill") and hasattr(model, "crop"):
                # Carried state needs windows that follow one another: the first ones, not a spread.
                value, note = carried_bits(model, self.windows(split)[: len(windows)], device)
                secondary["carried_bits_per_byte"] = value
                notes["carried"] = note
        items = nats / (math.log(2) * self.context)
        return quality(
            "bits_per_byte", items, better="lower", bound=bound, secondary=secondary, notes=notes
        )

    def _evaluate_symbols(
        self,
        model: Any,
        tokenizer: Tokenizer,
        split: str,
        device: torch.device | str,
        max_items: int | None,
    ) -> Quality:
        """As `evaluate`, of the tokenizer's symbols; the state is not carried."""
        check_split(split)
        texts = characters(self.parts[split].tobytes(), self.context)
        texts = [texts[n] for n in pick(len(texts), max_items)]
        with scoring(model, device) as device:
            scored = window_nats(model, tokenizer, texts, device)
        # Of the mean length, so that their mean is all bits over all bytes.
        length = sum(len(text.encode()) for text in texts) / len(texts)
        notes = {
            "windows": f"{len(texts)} of {length:.1f} bytes on average, at whole characters",
            "symbols": f"{length / scored.counts.mean():.2f} bytes each",
        }
        if scored.lost:
            notes["tokenizer"] = (
                f"{scored.lost} of {len(texts)} windows are not what their symbols stand for"
            )
        items = scored.nats / (math.log(2) * length)
        return quality("bits_per_byte", items, better="lower", bound=False, notes=notes)

    def baselines(self) -> list[Baseline]:
        """Uniform, order-0, bigram, 5-gram and lzma, fitted on train and scored on test."""
        from bench.tasks.baselines import text_baselines

        test = self.windows("test")
        return text_baselines(self.parts["train"], test)


def load(
    corpus: str | None,
    shares: Sequence[float],
    path: str | None,
    hub: str | None,
    hub_config: str | None,
    hub_column: str,
) -> Corpus:
    """The corpus that the configuration means; `path` and `hub` go before the built-in one."""
    shares = [float(share) for share in shares]
    if len(shares) != 3 or min(shares) <= 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-9):
        raise ValueError(
            f"task.shares={shares} must be three positive numbers that sum to one, "
            f"for train, validation and test"
        )
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


def to_tokens(windows: np.ndarray, device: torch.device) -> Tensor:
    """uint8 windows as int64 symbols on the device."""
    return torch.from_numpy(windows.astype(np.int64)).to(device)


def as_batch(windows: np.ndarray) -> Batch:
    """Windows as keyword arguments of a language model's forward: it predicts its own input."""
    tokens = torch.from_numpy(windows.astype(np.int64))  # (B, T)
    return {"tokens": tokens, "labels": tokens}


def nats_of(model: Any, windows: np.ndarray, device: torch.device) -> tuple[np.ndarray, bool]:
    """-log p of each window (N, T), nats (N,), and whether it is a bound; within `scoring`."""
    found: list[np.ndarray] = []
    bound = False
    for start in range(0, len(windows), EVAL_BATCH):
        score = model.log_prob(to_tokens(windows[start : start + EVAL_BATCH], device))
        bound = score.bound
        found.append(-score.nats.double().cpu().numpy())
    return np.concatenate(found), bound


def carried_bits(model: Any, windows: np.ndarray, device: torch.device) -> tuple[float, str]:
    """Bits per byte when the state goes on from window to window, and how it was done.

    A state that grows (a key-value cache) is advanced in half windows and cropped, so that no
    byte sees more than `context` bytes: beyond them a model was never trained.
    """
    count, context = windows.shape
    grows = model.state_bytes(1, 2 * context, torch.float32) > model.state_bytes(
        1, context, torch.float32
    )
    text, real = in_streams(windows, -(-count // STREAM_WINDOWS))  # (S, bytes)
    piece = max(context // 2, 1) if grows else context
    state: Any = None
    last: Tensor | None = None
    total = 0.0
    for start in range(0, text.shape[1], piece):
        tokens = to_tokens(text[:, start : start + piece], device)  # (S, P)
        counts = torch.from_numpy(real[:, start : start + piece]).to(device)  # (S, P)
        if state is not None and grows:
            state = model.crop(state, context - piece)
        logits, state = model.prefill(tokens, state)  # (S, P, V)
        if last is None:
            total -= float(model.log_prob(tokens[:, :1]).nats.double().sum())
            ahead, target, counts = logits[:, :-1], tokens[:, 1:], counts[:, 1:]
        else:
            ahead, target = torch.cat([last, logits[:, :-1]], dim=1), tokens
        last = logits[:, -1:]
        log_p = ahead.float().log_softmax(-1).gather(-1, target[..., None])[..., 0]
        total -= float(log_p.double()[counts].sum())
    seen = f"at most {context} bytes seen (cache cropped)" if grows else "state of fixed size"
    streams = f"{len(text)} stream{'s' * (len(text) > 1)}"
    note = f"the first {windows.size} bytes in order, {streams}, {seen}"
    return total / (math.log(2) * windows.size), note


def in_streams(windows: np.ndarray, streams: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (N, T) cut into streams of neighbours (S, bytes), and which bytes are real.

    Where N is no multiple of S the last streams are a window shorter and end in zeros, which no
    byte that counts comes after.
    """
    context = windows.shape[1]
    parts = [part.ravel() for part in np.array_split(windows, streams)]
    text = np.zeros((streams, -(-len(windows) // streams) * context), dtype=windows.dtype)
    real = np.zeros(text.shape, dtype=bool)
    for row, part in enumerate(parts):
        text[row, : len(part)] = part
        real[row, : len(part)] = True
    return text, real
