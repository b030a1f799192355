"""Whether a score of head differs from that of base, by the seeds that both were run with.

Seeds vary the start and the order of the data, so base and head at one seed are a pair. Two votes
have to agree, as for times: Student's paired interval of the change lies wholly beyond the floor,
and its p, corrected after Holm (1979) over all scores of the comparison, is at most `ALPHA`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bench.report.compare.statistics import ALPHA, Array, Judgement, holm

SCORE_FLOOR = 0.005  # relative change of a score that nobody is told of
BySeed = Mapping[int, float]


def judge_scores(
    pairs: Mapping[str, tuple[BySeed, BySeed, str]],
    *,
    floor: float = SCORE_FLOOR,
) -> dict[str, Judgement]:
    """A verdict for every score: better, worse, same or ambiguous.

    `pairs` maps a score to its values by seed of base and head, and to its better direction.
    """
    found = {name: _paired_test(*_shared(base, head)) for name, (base, head, _) in pairs.items()}
    p = holm({name: test.p for name, test in found.items() if test is not None})
    return {
        name: judge_paired(base, head, better=better, floor=floor, p=p.get(name))
        for name, (base, head, better) in pairs.items()
    }


def judge_paired(
    base: BySeed,
    head: BySeed,
    *,
    better: str,
    floor: float = SCORE_FLOOR,
    p: float | None = None,
) -> Judgement:
    """A score of the same seeds on both sides: better, worse, same or ambiguous.

    `floor` is the relative change that nobody is told of, `p` that of the test where it was
    corrected over several scores. Equal scores of every seed are the same at any number of seeds:
    training repeats itself where nothing changed.
    """
    before, after = _shared(base, head)
    if not before.size:
        return _unpaired("no seed was run on both sides", 0)
    found = _verdict(before, after, better, floor, p)
    return replace(found, base=float(before.mean()), head=float(after.mean()))


@dataclass(frozen=True)
class _Paired:
    """Student's paired test of the relative change: its mean, its interval and p."""

    mean: float
    low: float
    high: float
    p: float
    scale: float  # what changes are relative to


def _shared(base: BySeed, head: BySeed) -> tuple[Array, Array]:
    """The scores of the seeds that both sides have."""
    seeds = sorted(base.keys() & head.keys())
    return np.array([base[seed] for seed in seeds]), np.array([head[seed] for seed in seeds])


def _paired_test(before: Array, after: Array) -> _Paired | None:
    """None where there are fewer than two seeds, or where nothing changed."""
    from scipy import stats  # slow to load, and of no use to a table

    change = after - before
    if before.size < 2 or not change.any():
        return None
    scale = abs(float(before.mean())) or 1.0
    result = stats.ttest_1samp(change / scale, 0.0)
    low, high = result.confidence_interval(1 - ALPHA)
    return _Paired(float(change.mean()), float(low), float(high), float(result.pvalue), scale)


def _verdict(before: Array, after: Array, better: str, floor: float, p: float | None) -> Judgement:
    n = before.size
    if not (after - before).any():
        return Judgement("same", 1.0, 1.0, 1.0, 1.0, 0.0, n, n, f"equal at each of {n} seeds")
    test = _paired_test(before, after)
    if test is None:
        ratio = 1 + float((after - before)[0]) / (abs(float(before[0])) or 1.0)
        return _unpaired("the score changed, and one seed cannot tell by how much", n, ratio)
    p = test.p if p is None else p
    low, high = test.low, test.high
    smallest = floor + (high - low) / 2
    said = f"{test.mean:+.4g} [{low * test.scale:+.4g}, {high * test.scale:+.4g}] over {n} seeds"
    beyond = low > floor or high < -floor
    if beyond and p <= ALPHA:
        verdict = "better" if (test.mean > 0) == (better == "higher") else "worse"
        why = f"{said} lies beyond {floor:.1%}, p {p:.1g}"
    elif beyond:
        verdict = "ambiguous"
        why = f"{said} lies beyond {floor:.1%}, but p {p:.2g} is above {ALPHA:.2g}"
    elif -floor < low and high < floor:
        verdict, why = "same", f"{said} lies within {floor:.1%}"
    else:
        verdict = "ambiguous"
        why = (
            f"{said} is neither within {floor:.1%} nor beyond; "
            f"the smallest change that could have been found is {smallest:.1%}"
        )
    ratio = 1 + test.mean / test.scale
    return Judgement(verdict, ratio, 1 + low, 1 + high, p, smallest, n, n, why)


def _unpaired(reason: str, n: int, ratio: float = math.nan) -> Judgement:
    return Judgement("ambiguous", ratio, math.nan, math.nan, 1.0, math.nan, n, n, reason)
