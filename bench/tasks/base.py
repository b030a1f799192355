"""What a task offers to the scenarios, and the figures that it hands back.

Shapes: N items of a split, B batch, T time (bytes of a window), V vocabulary, C classes,
H and W image sides.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from bench.tasks.splits import SPLITS as SPLITS

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class DataId:
    """Which data a figure was taken on; figures of different `sha256` are not comparable.

    `sizes` counts bytes (text) or images per split.
    """

    id: str
    sha256: str
    sizes: dict[str, int]
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Quality:
    """A score with its uncertainty over the items of the split.

    `items` holds one score per item in the unit of `value`, which is their mean. A score that
    exists only for the split as a whole (a compressor's) has one item and a `stderr` of nan.
    """

    metric: str
    value: float
    better: str  # "lower" or "higher"
    bound: bool
    stderr: float
    n_items: int
    items: np.ndarray
    secondary: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    artefacts: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Baseline:
    """A plain rival that grounds a task's numbers; `seconds` to fit and score it."""

    name: str
    description: str
    quality: Quality
    seconds: float


@runtime_checkable
class Task(Protocol):
    """A shared task, built inside the process that measures."""

    kind: str  # "language", "classify" or "generate"
    unit: str  # "tokens" or "images": what throughput counts
    symbols_per_item: int
    data: DataId

    def batches(self, split: str, batch_size: int, seed: int) -> Iterator[Batch]:
        """Endless shuffled batches: keyword arguments of the model's forward, labels included."""
        ...

    def example(self, batch_size: int, length: int | None = None) -> Batch:
        """One fixed batch for timing."""
        ...

    def evaluate(
        self,
        model: Any,
        split: str,
        device: torch.device | str,
        max_items: int | None = None,
        full: bool = False,
    ) -> Quality:
        """Score a model; `full` adds the secondary scores of the final test evaluation."""
        ...

    def baselines(self) -> list[Baseline]:
        """The plain rivals, fitted on train and scored on test."""
        ...


def quality(metric: str, items: np.ndarray, *, better: str, bound: bool, **more: Any) -> Quality:
    """A `Quality` whose value is the plain mean of `items`, with that mean's standard error."""
    items = np.asarray(items, dtype=np.float64)
    stderr = float(items.std(ddof=1) / math.sqrt(len(items))) if len(items) > 1 else math.nan
    return Quality(
        metric=metric,
        value=float(items.mean()),
        better=better,
        bound=bound,
        stderr=stderr,
        n_items=len(items),
        items=items,
        **more,
    )


def check_split(split: str) -> None:
    """Refuse a split that no task has."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown; allowed are {', '.join(SPLITS)}")


def stream_of(split: str, *seeds: int) -> np.random.Generator:
    """For a task that draws its data: another stream for each split, and of train for each seed."""
    check_split(split)
    return np.random.default_rng([1 + SPLITS.index(split), *seeds])


def check_train(split: str) -> None:
    """Refuse to train on what a task that draws its data has for scoring."""
    check_split(split)
    if split != "train":
        raise ValueError(f"split={split!r} is no split to train on; allowed is train")


def check_positive(name: str, value: object) -> None:
    """Refuse sizes of zero and numbers that are no integers."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} must be an integer of at least 1")


def pick(n: int, max_items: int | None) -> np.ndarray:
    """Indices of at most `max_items` of `n` items, evenly spread so that no part is favoured."""
    if max_items is None or max_items >= n:
        return np.arange(n)
    check_positive("max_items", max_items)
    return np.linspace(0, n - 1, max_items).round().astype(np.int64)


def shuffled(n: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of indices: every index once an epoch, batches run across epochs."""
    check_positive("batch_size", batch_size)
    pending = np.empty(0, dtype=np.int64)
    while True:
        while len(pending) < batch_size:
            pending = np.concatenate([pending, rng.permutation(n)])
        yield pending[:batch_size]
        pending = pending[batch_size:]


def digest(parts: Mapping[str, Any]) -> str:
    """SHA-256 over named arrays or byte strings, names and shapes included."""
    total = hashlib.sha256()
    for name, part in parts.items():
        data = part.tobytes() if isinstance(part, np.ndarray) else part
        shape = part.shape if isinstance(part, np.ndarray) else (len(part),)
        total.update(f"{name}{shape}".encode())
        total.update(data)
    return total.hexdigest()


@contextmanager
def scoring(model: Any, device: torch.device | str) -> Iterator[torch.device]:
    """Evaluation mode without gradients, under a fixed random state that training never sees.

    Bounds and samples draw random numbers: without this, how often one looks at the validation
    score would change what is trained.
    """
    device = torch.device(device)
    training = model.training if isinstance(model, nn.Module) else False
    devices = [device] if device.type == "cuda" else []
    metal = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        if isinstance(model, nn.Module):
            model.eval()
        try:
            yield device
        finally:
            if metal is not None:
                torch.mps.set_rng_state(metal)
            if isinstance(model, nn.Module):
                model.train(training)
