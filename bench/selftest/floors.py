"""What equals differ by on this machine, which becomes the floor of later comparisons."""

from collections.abc import Iterable

import numpy as np

from bench.report.compare.floors import APART, IN_TURNS
from bench.report.compare.statistics import LOOKS, Processes, typical
from bench.selftest.pool import Pool
from bench.selftest.rehearse import pairs

SHARE = 0.99  # of A/A comparisons whose ratio lies within the floor
Sides = tuple[Processes, Processes]


def floors(pool: Pool, comparisons: int, seed: int) -> dict[str, dict[str, float]]:
    """By kind and metric, the relative change that 1 in 100 A/A comparisons exceeds.

    A comparison has as many processes a side as the first look: in turns, or of two stretches of
    time that do not overlap.
    """
    draw = np.random.default_rng(seed)

    def in_turns(metric: str) -> Sides:
        base, head = zip(*pairs(pool, metric, 0.0, draw, LOOKS[0]), strict=True)
        return base, head

    def apart(metric: str) -> Sides:
        return two_stretches([pair.plain for pair in pool.pairs[metric]], LOOKS[0], draw)

    return {
        kind: {metric: _floor(sides(metric) for _ in range(comparisons)) for metric in pool.pairs}
        for kind, sides in ((IN_TURNS, in_turns), (APART, apart))
    }


def _floor(drawn: Iterable[Sides]) -> float:
    ratios = [typical(head) / typical(base) for base, head in drawn]
    return float(np.quantile([max(ratio, 1 / ratio) - 1 for ratio in ratios], SHARE))


def two_stretches(processes: Processes, count: int, draw: np.random.Generator) -> Sides:
    """Two stretches of `count` processes that follow each other, apart from one another.

    Shorter ones where there are not enough.
    """
    count = min(count, len(processes) // 2)
    room = len(processes) - 2 * count
    first, gap = sorted(int(place) for place in draw.integers(room + 1, size=2))
    second = gap + count
    sides = processes[first : first + count], processes[second : second + count]
    return sides if draw.integers(2) else (sides[1], sides[0])
