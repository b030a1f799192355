"""Time of a repeated call: cold call apart, fixed warm-up, every sample kept.

Sampling goes on until there are enough samples, enough time and a narrow enough interval of the
median, or until the cap (MLPerf inference and nvbench stop by the same three conditions).

On CUDA each call lies between two events, and the host waits for them once a window of calls. To
wait after each call would let the device run dry, and every sample would hold the time to start it
again. On MPS that is what a sample holds: the host's clock from the call until
`torch.mps.synchronize` returns, starting the device and waiting for it included.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.meters.waiting import wait_for

EXACT_RANKS = 1000  # samples up to which 2^-n is a float and the binomial is summed
WINDOW_S = 0.02  # of calls on CUDA that are waited for together
MOST_CALLS = 100  # in such a window: a call puts many kernels in a queue of about a thousand


def turn() -> None:
    """Called before every timed call; a comparison replaces it to make two processes take turns."""


@dataclass(frozen=True)
class Limits:
    """When to stop. Times in seconds; `relative_error` is the half-width of the interval."""

    warmup: int
    min_samples: int
    min_seconds: float
    max_seconds: float
    relative_error: float


@dataclass(frozen=True)
class Timing:
    """Samples of one call in seconds, and what was learned from them."""

    cold_s: float
    warmup: int
    samples_s: list[float]
    valid: bool
    reason: str | None
    clock: str  # what took the samples

    @property
    def median_s(self) -> float:
        return float(np.median(self.samples_s))

    @property
    def interval_s(self) -> tuple[float, float]:
        return median_interval(self.samples_s)

    def as_record(self, items_per_call: int, unit: str) -> dict[str, Any]:
        low, high = self.interval_s
        return {
            "cold_s": self.cold_s,
            "warmup": self.warmup,
            "samples_s": self.samples_s,
            "n": len(self.samples_s),
            "median_s": self.median_s,
            "ci_low_s": low,
            "ci_high_s": high,
            "items_per_call": items_per_call,
            "unit": unit,
            "clock": self.clock,
        }


def median_interval(samples: list[float]) -> tuple[float, float]:
    """Distribution-free 95 % interval of the median from order statistics (binomial ranks).

    With fewer than six samples no pair of ranks covers 95 %; the whole range is returned.
    """
    n = len(samples)
    ordered = np.sort(samples)
    k = _rank(n)
    return float(ordered[k]), float(ordered[n - 1 - k])


def _rank(n: int) -> int:
    """The largest k with P(Binomial(n, 1/2) < k) <= 2.5 %, at least 1, counted from 0."""
    if n > EXACT_RANKS:
        # Normal approximation with the continuity correction, rounded to the wider side.
        return math.floor((n - 1) / 2 - 1.96 * math.sqrt(n) / 2)
    k, below = 0, 0.5**n
    while k < n // 2 and below <= 0.025:
        k += 1
        below += math.comb(n, k) * 0.5**n
    return max(k - 1, 0)


def measure(
    call: Callable[[], object],
    limits: Limits,
    device: torch.device,
    before: Callable[[], object] = lambda: None,
    wanted: int = 0,
) -> Timing:
    """Time `call` on `device` by its own clock, with `before` each call that is not timed.

    `wanted` samples are taken where the cap allows it; fewer are no defect.
    """
    windows = _windows(device)
    (cold,) = windows.first(call, before)
    for _ in range(limits.warmup):
        before()
        call()
    windows.settle()
    samples: list[float] = []
    begin = time.perf_counter()
    narrow, look = False, max(limits.min_samples, wanted)
    while not narrow:
        samples += windows.next(call, before)
        elapsed = time.perf_counter() - begin
        over = elapsed >= limits.max_seconds
        if over or (len(samples) >= look and elapsed >= limits.min_seconds):
            enough = len(samples) >= limits.min_samples
            narrow = enough and _relative_error(samples) <= limits.relative_error
            # Looking sorts all samples: done at every call it would cost more than short calls do.
            look = math.ceil(1.1 * len(samples))
        if over:
            break
    reason = _shortcoming(samples, limits, narrow)
    return Timing(cold, limits.warmup, samples, reason is None, reason, windows.clock)


def _shortcoming(samples: list[float], limits: Limits, narrow: bool) -> str | None:
    if len(samples) < limits.min_samples:
        return f"{len(samples)} of {limits.min_samples} samples within {limits.max_seconds:g} s"
    if not narrow:
        error = _relative_error(samples)
        return f"median known to {error:.1%} instead of {limits.relative_error:.1%}"
    return None


def _relative_error(samples: list[float]) -> float:
    low, high = median_interval(samples)
    return (high - low) / 2 / float(np.median(samples))


def _windows(device: torch.device) -> "_CpuWindows | _CudaWindows":
    """How calls on `device` are timed."""
    if device.type == "cuda":
        return _CudaWindows(device)
    return _MpsWindows(device) if device.type == "mps" else _CpuWindows(device)


class _CpuWindows:
    """Windows of a single call: a call has ended when it returns."""

    clock = "perf_counter"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def next(self, call: Callable[[], object], before: Callable[[], object]) -> Sequence[float]:
        before()
        turn()
        return (_cpu_clock(call),)

    def first(self, call: Callable[[], object], before: Callable[[], object]) -> Sequence[float]:
        """The cold call, as any other."""
        return self.next(call, before)

    def settle(self) -> None:
        """Wait for what was begun to end."""
        wait_for(self.device)


class _MpsWindows(_CpuWindows):
    """Windows of a single call, after which the host waits for the device."""

    clock = "perf_counter after torch.mps.synchronize"

    def next(self, call: Callable[[], object], before: Callable[[], object]) -> Sequence[float]:
        before()
        self.settle()  # what prepares the call is no part of it
        turn()

        def whole() -> None:
            call()
            self.settle()

        return (_cpu_clock(whole),)


def _cpu_clock(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


class _CudaWindows:
    """Windows of about `WINDOW_S`, at the end of which the host waits for the device."""

    clock = "CUDA events"

    def __init__(self, device: torch.device) -> None:
        self.device, self.calls = device, 1

    def first(self, call: Callable[[], object], before: Callable[[], object]) -> Sequence[float]:
        """One call by itself, which says nothing of how long the next ones will take."""
        return self._window(call, before, 1)

    def next(self, call: Callable[[], object], before: Callable[[], object]) -> Sequence[float]:
        samples = self._window(call, before, self.calls)
        mean = sum(samples) / len(samples)
        self.calls = max(1, min(MOST_CALLS, int(WINDOW_S / max(mean, 1e-9))))
        return samples

    def settle(self) -> None:
        """Wait for the warm-up to end."""
        wait_for(self.device)

    def _window(
        self, call: Callable[[], object], before: Callable[[], object], calls: int
    ) -> list[float]:
        pairs = []
        for number in range(calls):
            before()
            if number == 0:
                turn()  # between windows alone nothing of ours is running
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            pairs.append((begin, end))
        pairs[-1][1].synchronize()  # one stream: those before it have passed
        return [begin.elapsed_time(end) / 1000 for begin, end in pairs]
