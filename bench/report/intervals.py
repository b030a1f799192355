"""Intervals of a mean score over two crossed samples: S seeds and N test items.

Every seed is scored on the same items, so a score is mu + seed + item + rest, all of them random
(a two-way layout, Scheffé 1959, "The Analysis of Variance", section 7.4), and the variance of the
mean of all S·N scores has two parts that further seeds and further items shrink apart:

    seeds   (var_seed + var_rest/N) / S   estimated by the variance of the seeds' means over S,
                                          with S - 1 degrees of freedom
    items   var_item / N                  estimated by (MS_item - MS_rest) / (S·N), at least 0,
                                          with N - 1 degrees of freedom

Half the interval is Cochran's (1964, "Approximate significance levels of the Behrens-Fisher test",
Biometrics 20): t · sqrt(sum of the parts), where t is the mean of Student's quantiles weighted by
the parts. It holds the truth in 94 to 98 % of the cases, whatever the parts are like; degrees of
freedom after Satterthwaite (1946) would bring that down to 93 % with three seeds and 88 % with two
(tests/report/test_intervals.py). The difference of two rows is treated in the same way, with the
differences of paired scores in the place of scores.

Shapes: S seeds, N items; leading axes are cases side by side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05  # two-sided error of an interval
FEWEST = 5  # seeds below which an interval is provisional
NORMAL = 100.0  # degrees of freedom from which on Student's t is taken for normal
LEAST = 1e-300  # of the p that are told apart
Value = float | NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """A part of a mean's variance, and the degrees of freedom with which it is known."""

    variance: Value
    df: float


def crossed(scores: NDArray[np.float64]) -> tuple[Part, Part]:
    """The parts of seeds and of items of the mean of scores (..., S, N); S and N at least 2."""
    seeds, items = scores.shape[-2:]
    by_seed = scores.mean(-1)  # (..., S)
    by_item = scores.mean(-2)  # (..., N)
    rest = residual(scores)
    of_items = by_item.var(-1, ddof=1) / items - rest / (seeds * items)
    return (
        Part(by_seed.var(-1, ddof=1) / seeds, seeds - 1),
        Part(np.maximum(of_items, 0.0), items - 1),
    )


def residual(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean square of what neither seed nor item explains, of scores (..., S, N)."""
    seeds, items = scores.shape[-2:]
    total = scores.mean((-2, -1), keepdims=True)
    rest = scores - scores.mean(-1, keepdims=True) - scores.mean(-2, keepdims=True) + total
    found: NDArray[np.float64] = (rest**2).sum((-2, -1)) / ((seeds - 1) * (items - 1))
    return found


def mean_of(values: Sequence[float] | NDArray[np.float64]) -> Part:
    """The only part of the mean of at least two values."""
    return Part(float(np.var(values, ddof=1)) / len(values), len(values) - 1)


def half_width(parts: Sequence[Part], level: float = LEVEL) -> Value:
    """Half the two-sided interval of a mean whose variance is the sum of `parts`."""
    total = sum((part.variance for part in parts), 0.0 * parts[0].variance)
    weighted = sum(part.variance * quantile(part.df, level) for part in parts)
    half: Value = weighted / np.sqrt(np.where(total == 0, 1.0, total))  # 0 of 0: no variance
    return half if np.ndim(half) else float(half)


def p_value(value: float, parts: Sequence[Part]) -> float:
    """The level at which the interval of `value` just reaches zero, by bisection of its logarithm.

    It is at most `level` where and only where the interval of that level leaves zero out.
    """
    if value == 0 or not parts:
        return 1.0
    if all(part.variance == 0 for part in parts):
        return 0.0
    low, high = math.log(LEAST), 0.0
    for _ in range(60):
        middle = (low + high) / 2
        outside = abs(value) > half_width(parts, math.exp(middle))
        low, high = (low, middle) if outside else (middle, high)
    return math.exp(high)


def quantile(df: float, level: float = LEVEL) -> float:
    """Student's t that `level` of all values lie beyond, on both sides together."""
    if df >= NORMAL:
        return -NormalDist().inv_cdf(level / 2) if level < 1 else 0.0
    from scipy.special import stdtrit  # slow to load, and of no use where every row has one seed

    return -float(stdtrit(df, level / 2))
