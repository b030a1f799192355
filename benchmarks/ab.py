"""Time two rivals side by side: A B B A in one process, two threads, one line with the ratio.

Alternation cancels the slow drift of a shared machine; a ratio is taken inside each A B B A block,
so that its spread says how much of the difference is noise.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterable

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


def seconds_of(call: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(
    name: str,
    ours: Callable[[], None],
    theirs: Callable[[], None],
    *,
    seconds: float,
    target: float,
) -> float:
    """Print and return the median ratio theirs/ours (above 1: ours is faster).

    Runs blocks of ours, theirs, theirs, ours for about `seconds` of wall time, at least
    `MIN_BLOCKS` of them, after `WARMUP` calls of each. `target` is the ratio asked for.
    """
    torch.set_num_threads(THREADS)
    for _ in range(WARMUP):
        ours()
        theirs()
    a: list[float] = []
    b: list[float] = []
    ratios: list[float] = []
    end = time.perf_counter() + seconds
    while len(ratios) < MIN_BLOCKS or time.perf_counter() < end:
        block = (seconds_of(ours), seconds_of(theirs), seconds_of(theirs), seconds_of(ours))
        a += [block[0], block[3]]
        b += [block[1], block[2]]
        ratios.append((block[1] + block[2]) / (block[0] + block[3]))
    ratio = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4)
    verdict = "reached" if ratio >= target else "MISSED"
    print(
        f"{name}: ours {1e3 * statistics.median(a):.2f} ms, theirs "
        f"{1e3 * statistics.median(b):.2f} ms, ratio {ratio:.3f} "
        f"(quartiles {low:.3f} to {high:.3f}, {len(ratios)} blocks), target {target:.3f} {verdict} "
        f"[torch {torch.__version__}, {THREADS} threads, {allocator()}]",
        flush=True,
    )
    return ratio
