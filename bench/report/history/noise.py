"""The noise from commit to commit, and what it allows to say of two levels.

Successive differences know the noise without being fooled by a slow drift: von Neumann, Kent,
Bellinson and Hart 1941, "The mean square successive difference".

    z     logarithms of times, or scores        s     standard deviation of one commit
    c     number of differences                 df    degrees of freedom of a chi² as sure as s²
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bench.report.history.divisive import Array

LEAST_STEPS = 5  # differences below which the noise is not known


@dataclass(frozen=True)
class Noise:
    """Standard deviation of a commit's value, and the degrees of freedom it is known with."""

    s: float
    df: float
    steps: int

    def difference(self, step: float, n: int, m: int, level: float) -> tuple[float, float]:
        """Two-sided p of `step` between means of n and m commits, and half its interval."""
        error = self.s * math.sqrt(1 / n + 1 / m)
        if error == 0.0:
            return (0.0 if step else 1.0), 0.0
        from scipy import stats  # slow to load, and of no use to a table

        p = 2 * float(stats.t.sf(abs(step) / error, self.df))
        return p, float(stats.t.isf((1 - level) / 2, self.df)) * error


def noise(stretches: Iterable[Array]) -> Noise:
    """From stretches of one level each: s² = sum d² / 2c, Var s² = s⁴ sum(3 c_i - 1) / c²."""
    found = [np.diff(stretch) for stretch in stretches if len(stretch) > 1]
    steps = sum(len(differences) for differences in found)
    if not steps:
        return Noise(math.nan, 0.0, 0)
    squares = sum(float((differences**2).sum()) for differences in found)
    spread = sum(3 * len(differences) - 1 for differences in found)
    return Noise(math.sqrt(squares / (2 * steps)), 2 * steps**2 / spread, steps)
