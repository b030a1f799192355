"""What tasks of language share: windows scored in bits per byte, and the plain rivals.

B batch, T bytes of a window (`context`), N windows of a split, V symbols: 256, or a tokenizer's.
"""

import abc
import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bench.tasks.base import (
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
from bench.tasks.tokenizer import Tokenizer, characters, window_nats

EVAL_BATCH = 32
STREAM_WINDOWS = 256  # longer splits are carried in several streams side by side


class Part(Protocol):
    """Bytes of a split, or its windows (N, T): an array, or something that reads like one."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...


class LanguageTask(abc.ABC):
    """Scores models on windows of bytes; a task says where windows and bytes come from."""

    kind = "language"
    unit = "tokens"
    tokenizer: Tokenizer | None
    vocab_size: int
    context: int
    symbols_per_item: int
    data: DataId
    parts: dict[str, Any]  # bytes of each split that is scored
    scored: int | None = None  # windows of a split at most

    @abc.abstractmethod
    def windows(self, split: str) -> Any:
        """All windows of a split, (N, T) uint8; the last partial one is dropped."""

    @abc.abstractmethod
    def beginning(self, split: str, count: int) -> np.ndarray:
        """The first `count` symbols of a split, or all where it has fewer."""

    def chosen(self, count: int, max_items: int | None) -> np.ndarray:
        """Which of `count` windows are scored: all, or as many as are allowed, evenly spread."""
        limits = [limit for limit in (max_items, self.scored) if limit is not None]
        return pick(count, min(limits, default=None))

    def example(self, batch_size: int, length: int | None = None) -> Batch:
        """The first symbols of train, (batch_size, length), repeated where they do not suffice."""
        length = self.context if length is None else length
        check_positive("batch_size", batch_size)
        check_positive("length", length)
        symbols = self.beginning("train", batch_size * length)
        return as_batch(np.resize(symbols, (batch_size, length)))

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
        every = self.windows(split)
        windows = every[self.chosen(len(every), max_items)]
        secondary: dict[str, float] = {}
        notes = {"windows": f"{len(windows)} of {self.context} bytes, last partial one dropped"}
        with scoring(model, device) as device:
            nats, bound = nats_of(model, windows, device)
            if full and hasattr(model, "prefill") and hasattr(model, "crop"):
                # Carried state needs windows that follow one another: the first ones, not a spread.
                value, note = carried_bits(model, every[: len(windows)], device)
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
        part = self.parts[split]
        chosen = self.chosen(len(part) // self.context, max_items)
        texts = characters(part, self.context, chosen)
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
        return text_baselines(self.fitted(), test[self.chosen(len(test), None)])

    def fitted(self) -> np.ndarray:
        """The bytes of train that plain rivals are fitted on."""
        return np.asarray(self.parts["train"])


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
