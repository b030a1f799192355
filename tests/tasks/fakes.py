"""Predictors whose score theory knows, after the protocols that a task is told of."""

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from bench.tasks.text import TextTask


def text_task(**changes: Any) -> TextTask:
    """The task of `configs/task/text.yaml`, some keys changed."""
    keys: dict[str, Any] = {
        "corpus": "manual",
        "context": 256,
        "vocab_size": 256,
        "shares": [0.8, 0.1, 0.1],
        "path": None,
        "hub": None,
        "hub_config": None,
        "hub_column": "text",
        "tokenizer": None,
    }
    return TextTask(**(keys | changes))


class ConstantText:
    """Every byte equally likely, with a state that only counts."""

    def __init__(self, bound: bool = False) -> None:
        self.bound = bound

    def log_prob(self, tokens: Tensor) -> Any:
        nats = torch.full((len(tokens),), -tokens.shape[1] * math.log(256))
        return SimpleNamespace(nats=nats, bound=self.bound, forwards=1)


class PerfectText(ConstantText):
    """Knows the text by heart."""

    def log_prob(self, tokens: Tensor) -> Any:
        return SimpleNamespace(nats=torch.zeros(len(tokens)), bound=False, forwards=1)


class LastByte(torch.nn.Module):
    """A bigram table with its exact state: the last byte, -1 before the first.

    `cached` makes the state a growing list of bytes, so that cropping can be watched.
    """

    def __init__(self, cached: bool = False) -> None:
        super().__init__()
        self.table = torch.randn(257, 256, generator=torch.Generator().manual_seed(0))
        self.cached = cached
        self.longest = 0

    def log_prob(self, tokens: Tensor) -> Any:
        before = torch.cat([torch.full_like(tokens[:, :1], 256), tokens[:, :-1]], 1)
        log_p = self.table[before].log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        return SimpleNamespace(nats=log_p.sum(1), bound=False, forwards=1)

    def prefill(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        kept = tokens if state is None else torch.cat([state, tokens], 1)
        if self.cached:
            self.longest = max(self.longest, kept.shape[1])
        return self.table[tokens], kept if self.cached else tokens[:, -1:]

    def crop(self, state: Any, length: int) -> Any:
        return state[:, -length:]

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        return 8 * batch * (context if self.cached else 1)


class FakeClassifier:
    """Answers a fixed function of the pixels."""

    readout, view, forwards_per_image = "head", "2-D", 1

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def classify(self, pixels: Tensor) -> Tensor:
        return self.answer(pixels)


class FakeGenerator:
    """log p(pixels | class) and samples as given functions."""

    def __init__(self, nats: Any, sample: Any = None, bound: bool = False) -> None:
        self.nats, self.drawn, self.bound = nats, sample, bound

    def log_prob(self, pixels: Tensor, condition: Tensor) -> Any:
        return SimpleNamespace(nats=self.nats(pixels, condition), bound=self.bound, forwards=2)

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        length: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return self.drawn(n, condition)
