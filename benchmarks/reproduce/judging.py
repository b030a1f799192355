"""Scores of rivals over seeds, and whether a published statement holds of them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.report.intervals import FEWEST, half_width, mean_of
from benchmarks.reproduce.studies import VALUE, Above, Reaches, Rival, Statement

HOLDS, NOT, UNTOLD = "holds here", "does not hold here", "cannot be told"
Scores = Mapping[str, Sequence[float]]  # by name of a score, one value a seed, the same seeds


@dataclass(frozen=True)
class Found:
    """What one rival reached: its rate, the rates that were tried, and scores by seed."""

    rival: Rival
    rate: float
    tried: str
    scores: Scores
    seconds: float  # mean of a training
    state: int | None = None  # bytes


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds and half of its 95 % interval by Student's t."""
    return statistics.fmean(values), float(half_width([mean_of(values)]))


def shown(values: Sequence[float]) -> str:
    """`0.954 ± 0.012`."""
    mean, half = interval(values)
    return f"{mean:.3f} ± {half:.3f}"


def provisional(seeds: int) -> str:
    """What a table says of an interval over few seeds."""
    return f" (provisional: {seeds} seeds)" if seeds < FEWEST else ""


def judge(statement: Statement, found: Mapping[str, Found]) -> tuple[str, str]:
    """A verdict and the figures on which it rests.

    Two rivals are compared by the paired differences of their seeds. An amount is reached where the
    whole interval lies beyond it, and is not where the whole interval lies short of it.
    """
    if isinstance(statement, Above):
        better, worse = (found[name].scores[statement.score]
                         for name in (statement.better, statement.worse))  # fmt: skip
        mean, half = interval([a - b for a, b in zip(better, worse, strict=True)])
        what = f"difference {mean:+.3f} ± {half:.3f}"
    else:
        values = found[statement.rival].scores[statement.score]
        mean, half = interval(values)
        what = shown(values)
        if isinstance(statement, Reaches):
            mean -= statement.least
        else:
            mean = statement.most - mean
    low, high = mean - half, mean + half
    verdict = HOLDS if low > 0 else NOT if high < 0 else UNTOLD
    return verdict, what


def sentence(statement: Statement) -> str:
    """The statement in words."""
    at = "" if statement.score == VALUE else f" at {statement.score.removeprefix('at_')} symbols"
    if isinstance(statement, Above):
        return f"{statement.better} above {statement.worse}{at}"
    if isinstance(statement, Reaches):
        return f"{statement.rival} reaches {statement.least:g}{at}"
    return f"{statement.rival} stays below {statement.most:g}{at}"
