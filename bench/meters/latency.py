"""Latencies: the time to the first token, and how slow the slow ones of many calls are."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.meters.time import Timing

CONFIDENCE = 0.95


def samples_for(share: float) -> int:
    """Samples without which the quantile at `share` is not determined: 59 for p95, 299 for p99.

    Below that, even the largest sample lies short of the quantile in more than one case of twenty:
    n calls are all faster than it with probability share^n (Wilks 1941, "Determination of sample
    sizes for setting tolerance limits").
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(share))


def quantile(samples: Sequence[float], share: float) -> float | None:
    """The quantile at `share`; None where there are too few samples to determine it."""
    if len(samples) < samples_for(share):
        return None
    return float(np.quantile(samples, share))


def percentiles(samples: Sequence[float]) -> dict[str, float | None]:
    """p50, p95 and p99 of calls that took `samples` seconds."""
    return {f"p{percent}_s": quantile(samples, percent / 100) for percent in (50, 95, 99)}


def first_token(timing: Timing, prompt: int) -> dict[str, Any]:
    """Time until the first token was chosen after a prompt of `prompt` symbols."""
    low, high = timing.interval_s
    return {
        "prompt": prompt,
        "ttft_s": timing.median_s,
        "ttft_ci_low_s": low,
        "ttft_ci_high_s": high,
        "ttft_samples_s": timing.samples_s,
    }
