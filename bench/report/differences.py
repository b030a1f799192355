"""The difference of two rows, and whether it is more than noise.

Rows that were trained from the same seeds read the same data in the same order and are scored on
the same test items: their scores are pairs by seed and by item, and what both have in common drops
out of the difference. `bench.report.intervals` says how its interval is taken.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np

from bench.report.compare.statistics import holm
from bench.report.intervals import LEVEL, Part, crossed, half_width, mean_of, p_value, residual
from bench.report.noise import BOTH, ITEMS, SEEDS, Score

Key = TypeVar("Key", bound=Hashable)
OTHER_SEEDS, UNPAIRED = "other seeds", "unpaired"
RULES = {
    BOTH: "by the paired difference over seeds and test items",
    SEEDS: "by a paired t interval over seeds where scores per item are not at hand",
    ITEMS: "by the paired difference over test items",
    OTHER_SEEDS: "by paired test items and unpaired seeds",
    UNPAIRED: "by unpaired intervals where scores per item are not at hand",
}


@dataclass(frozen=True)
class Difference:
    """The score of a less that of b; `half` is None where nothing is known of the noise."""

    value: float
    half: float | None  # half the 95 % interval
    p: float  # that the truth is zero; nan where nothing is known of the noise
    rule: str  # a key of `RULES`
    seeds: int  # of either side
    adjusted: float = math.nan  # p, corrected over all that were looked at


def difference(a: Score, b: Score) -> Difference:
    """How far a lies above b, by the pairs that both have."""
    common = sorted(a.seeds.keys() & b.seeds.keys())
    if len(common) >= 2:
        left, right = a.of_items(common), b.of_items(common)
        value = float(np.mean([a.seeds[seed] - b.seeds[seed] for seed in common]))
        if left is not None and right is not None and left.shape == right.shape:
            return _found(value, crossed(left - right), BOTH, len(common))
        parts = (mean_of([a.seeds[seed] - b.seeds[seed] for seed in common]),)
        return _found(value, parts, SEEDS, len(common))
    return _of_items(a, b, common) or _found(
        a.value - b.value, (*a.parts, *b.parts), UNPAIRED, min(len(a.seeds), len(b.seeds))
    )


def _of_items(a: Score, b: Score, common: Sequence[int]) -> Difference | None:
    """By pairs of items, where fewer than two seeds are pairs."""
    several = min(len(a.seeds), len(b.seeds)) >= 2
    paired = [] if several else common
    left = a.of_items(paired or sorted(a.items))
    right = b.of_items(paired or sorted(b.items))
    if left is None or right is None or left.shape[1] != right.shape[1]:
        return None
    apart = left.mean(0) - right.mean(0)  # (N,)
    items = mean_of(apart)
    if not several:
        return _found(float(apart.mean()), (items,), ITEMS, 1)
    own = sum(float(residual(side)) / side.size for side in (left, right))
    parts = (
        *(mean_of(side.mean(1)) for side in (left, right)),
        Part(max(float(items.variance) - own, 0.0), items.df),
    )
    seeds = min(len(left), len(right))
    return _found(float(apart.mean()), parts, OTHER_SEEDS, seeds)


def _found(value: float, parts: Sequence[Part], rule: str, seeds: int) -> Difference:
    if not parts:
        return Difference(value, None, 1.0 if value == 0 else math.nan, rule, seeds)
    return Difference(value, float(half_width(parts)), p_value(value, parts), rule, seeds)


def differences(scores: Mapping[Key, Score]) -> dict[tuple[Key, Key], Difference]:
    """Every pair, the first of its two in the order of `scores` less the second.

    p is corrected after Holm (1979) over all pairs: whichever of them one looks at, all or the best
    against the others, a false difference is found in 5 % of such sets at most.
    """
    found = {(a, b): difference(scores[a], scores[b]) for a, b in combinations(scores, 2)}
    judged = {str(n): one.p for n, one in enumerate(found.values()) if not math.isnan(one.p)}
    adjusted = holm(judged)
    return {
        pair: replace(one, adjusted=adjusted.get(str(n), math.nan))
        for n, (pair, one) in enumerate(found.items())
    }


def best_first(scores: Mapping[Key, Score]) -> dict[Key, Score]:
    """The same rows, best mean first."""
    lower = all(score.better == "lower" for score in scores.values())
    order = sorted(scores, key=lambda key: scores[key].value, reverse=not lower)
    return {key: scores[key] for key in order}


def leaders(scores: Mapping[Key, Score]) -> tuple[set[Key], set[str]]:
    """The best and those inside the noise of it, and the rules by which."""
    if len(scores) < 2:
        return set(), set()
    best, *others = best_first(scores)
    found = differences({best: scores[best], **scores})
    # What cannot be judged is not told from the best either.
    inside = {key for key in others if not found[best, key].adjusted <= LEVEL}
    return {best} | inside, {found[best, key].rule for key in others}
