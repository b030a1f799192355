"""How time and state grow with the length of the context: t(T) = a + b·T + c·T², and T^k.

Attention reads every earlier symbol for each new one, so that c is what it costs; a recurrence has
none. Lengths span orders of magnitude and so do times: the fits minimise relative errors. The
power T^k is fitted to the longer half of the lengths, where what does not grow weighs least.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
STEEP = 1.5  # exponent of the last octave, half-way between a line and a square
LEAST = 3  # points of a fitted power: two fix a line through their logarithms


@dataclass(frozen=True)
class ContextFit:
    """Coefficients in seconds, seconds a symbol and seconds a symbol squared.

    `c_low` and `c_high` bound c at 95 %; `exponent` is log2 of the ratio over the last octave.
    """

    a: float
    b: float
    c: float
    c_low: float
    c_high: float
    exponent: float
    lengths: tuple[int, ...]
    seconds: tuple[float, ...]

    def at(self, length: float) -> float:
        """The fitted time in seconds."""
        return self.a + self.b * length + self.c * length**2

    @property
    def growth(self) -> str:
        """What c says; caches that overflow bend a line a little, which is no quadratic term."""
        if self.c_low <= 0 <= self.c_high:
            return "linear"
        return "quadratic" if self.c_low > 0 and self.exponent > STEEP else "bent line"


@dataclass(frozen=True)
class Power:
    """factor · T^exponent over the `lengths`; the exponent is known to ± `half` at 95 %."""

    exponent: float
    half: float
    factor: float
    lengths: tuple[int, ...]

    def at(self, length: float) -> float:
        """The fitted value."""
        return float(self.factor * length**self.exponent)


def fit_context(lengths: Sequence[int], seconds: Sequence[float]) -> ContextFit | None:
    """The fit, or None with fewer than four lengths: three points fit three coefficients exactly.

    Weighted least squares with weights 1/t², which is ordinary least squares of t(T)/t = 1; the
    interval of c is Student's with n - 3 degrees of freedom (Draper and Smith 1998, chapter 5).
    """
    n = len(lengths)
    if n < 4:
        return None
    from scipy import stats  # slow to load, and of no use to a table

    order = np.argsort(lengths)
    T = np.asarray(lengths, dtype=float)[order]
    t = np.asarray(seconds, dtype=float)[order]
    scale = T[-1]  # powers of a length near one, so that the normal equations are well conditioned
    x = T / scale
    design = np.stack([np.ones(n), x, x**2], 1) / t[:, None]  # (n, 3)
    found, *_ = np.linalg.lstsq(design, np.ones(n), rcond=None)
    residual = design @ found - 1
    variance = float(residual @ residual) / (n - 3)
    error = math.sqrt(variance * np.linalg.inv(design.T @ design)[2, 2])
    half = stats.t.isf((1 - LEVEL) / 2, n - 3) * error
    a, b, c = found / np.array([1.0, scale, scale**2])
    return ContextFit(
        a=float(a), b=float(b), c=float(c),
        c_low=float(c - half / scale**2), c_high=float(c + half / scale**2),
        exponent=_exponent(T, t), lengths=tuple(int(v) for v in T),
        seconds=tuple(float(v) for v in t),
    )  # fmt: skip


def _exponent(T: np.ndarray, t: np.ndarray) -> float:
    """Slope in log-log over the last octave: 1 is linear, 2 quadratic."""
    return float(np.log(t[-1] / t[-2]) / np.log(T[-1] / T[-2]))


def fit_power(lengths: Sequence[int], values: Sequence[float]) -> Power | None:
    """The power through the upper half of the points, at least three; None with fewer.

    Ordinary least squares of log(value) on log(T); the interval is Student's with n - 2 degrees of
    freedom (Draper and Smith 1998, chapter 1), from how far the points lie off the line.
    """
    pairs = sorted(zip(lengths, values, strict=True))
    upper = pairs[-max(LEAST, math.ceil(len(pairs) / 2)) :]
    if len(upper) < LEAST or min(value for _, value in upper) <= 0:
        return None
    from scipy import stats

    x, y = np.log(np.array(upper, dtype=float)).T
    apart = x - x.mean()
    slope = float(apart @ (y - y.mean()) / (apart @ apart))
    residual = y - y.mean() - slope * apart
    error = math.sqrt(float(residual @ residual) / (len(x) - 2) / float(apart @ apart))
    half = float(stats.t.isf((1 - LEVEL) / 2, len(x) - 2)) * error
    factor = math.exp(y.mean() - slope * x.mean())
    return Power(slope, half, factor, tuple(T for T, _ in upper))


def crossover(one: ContextFit, other: ContextFit) -> float | None:
    """The shortest length that both were measured around at which one overtakes the other.

    None where they do not cross within the lengths of both: further out is extrapolation.
    """
    low = max(one.lengths[0], other.lengths[0])
    high = min(one.lengths[-1], other.lengths[-1])
    if low >= high:
        return None
    grid = np.geomspace(low, high, 512)
    gap = np.array([one.at(T) - other.at(T) for T in grid])
    turns = np.flatnonzero(np.sign(gap[:-1]) * np.sign(gap[1:]) < 0)
    if not len(turns):
        return None
    from scipy import optimize

    place = turns[0]
    return float(optimize.brentq(lambda T: one.at(T) - other.at(T), grid[place], grid[place + 1]))
