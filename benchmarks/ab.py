"""Time two rivals side by side: A B B A in one process, two threads, one line with the ratio.

Alternation cancels the slow drift of a shared machine; a ratio is taken inside each A B B A block,
so that its spread says how much of the difference is noise.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

THREADS = 2
WARMUP = 2
MIN_BLOCKS = 5
# glibc keeps freed memory with these, which spares page faults on fresh tensors. They are read when
# the process starts, so they have to be given in its environment; both rivals share them.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "268435456",
}


def allocator() -> str:
    """Which allocator settings this process was started with, for the printed line."""
    return "tuned malloc" if all(os.environ.get(k) == v for k, v in ALLOCATOR.items()) else "malloc"


def train_step(loss: Callable[[], Tensor], params: Iterable[nn.Parameter]) -> Callable[[], None]:
    """One training step as a callable: zero_grad, forward, backward, fused AdamW."""
    optimizer = torch.optim.AdamW([p for p in params if p.requires_grad], lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def seconds_of(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Turns:
    """Seconds of every call of both sides, and theirs over ours inside each A B B A block."""

    ours_s: list[float]
    theirs_s: list[float]
    ratios: list[float]

    @property
    def ratio(self) -> float:
        """The median; above 1 ours is faster."""
        return statistics.median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper one of the ratios."""
        low, _, high = statistics.quantiles(self.ratios, n=4)
        return low, high

    def __str__(self) -> str:
        low, high = self.quartiles
        ours, theirs = (1e3 * statistics.median(side) for side in (self.ours_s, self.theirs_s))
        return (
            f"ours {ours:.2f} ms, theirs {theirs:.2f} ms, ratio {self.ratio:.3f} "
            f"(quartiles {low:.3f} to {high:.3f}, {len(self.ratios)} blocks)"
        )


def take_turns(
    ours: Callable[[], object], theirs: Callable[[], object], *, seconds: float
) -> Turns:
    """Blocks of ours, theirs, theirs, ours for about `seconds` of wall time.

    At least `MIN_BLOCKS` of them, after `WARMUP` calls of each.
    """
    torch.set_num_threads(THREADS)
    for _ in range(WARMUP):
        ours()
        theirs()
    turns = Turns([], [], [])
    end = time.perf_counter() + seconds
    while len(turns.ratios) < MIN_BLOCKS or time.perf_counter() < end:
        block = (seconds_of(ours), seconds_of(theirs), seconds_of(theirs), seconds_of(ours))
        turns.ours_s.extend((block[0], block[3]))
        turns.theirs_s.extend((block[1], block[2]))
        turns.ratios.append((block[1] + block[2]) / (block[0] + block[3]))
    return turns


def compare(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    seconds: float,
    target: float,
) -> float:
    """Print and return the median ratio theirs/ours (above 1: ours is faster).

    `target` is the ratio asked for; the rest is as in `take_turns`.
    """
    turns = take_turns(ours, theirs, seconds=seconds)
    verdict = "reached" if turns.ratio >= target else "MISSED"
    print(
        f"{name}: {turns}, target {target:.3f} {verdict} "
        f"[torch {torch.__version__}, {THREADS} threads, {allocator()}]",
        flush=True,
    )
    return turns.ratio
