"""The changes of a series: where a new level begins, by how much, and whether it lasted.

Changes are those of bench/report/history/divisive.py, of logarithms of times and of plain scores.
All series share one p, so that a whole report has the false alarms of one window (fewer than 1 %
of reports on plain noise have one). An exact figure changes wherever it is another one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bench.report.compare.floors import Floors
from bench.report.compare.metrics import of_cell
from bench.report.compare.scores import SCORE_FLOOR
from bench.report.compare.statistics import FLOOR
from bench.report.history.divisive import LEAST, WINDOW, Array, P, change_points
from bench.report.history.series import EXACT, SCORE, TIMED, Point, Series

VERDICTS = {TIMED: ("slower", "faster"), SCORE: ("worse", "better"), EXACT: ("changed", "changed")}


@dataclass(frozen=True)
class Change:
    """A new level from `place` on; values are means of the levels before and after it.

    `lasting` says whether the end of the series still lies beyond the old level.
    """

    place: int
    before: float
    after: float
    p: float | None  # None: an exact figure
    verdict: str
    lasting: bool

    @property
    def size(self) -> float:
        """Relative change, 0.05 for 5 % more."""
        return self.after / self.before - 1 if self.before else math.inf


def share_of_p(series: Sequence[Series], p: float = P) -> float:
    """The p of a change, so that all series together have the false alarms of one window at `p`.

    False alarms grow with the number of commits (tests/report/history/test_divisive.py).
    """
    commits = sum(len(one.points) for one in series if one.kind != EXACT)
    return p / max(1.0, commits / WINDOW)


def changes(series: Series, floor: float, p: float) -> list[Change]:
    """The changes larger than `floor` (relative) in order; none where there are too few commits."""
    z = scaled(series)
    if series.kind == EXACT:
        places: list[tuple[int, float | None]] = [
            (i, None) for i in range(1, len(z)) if z[i] != z[i - 1]
        ]
    elif len(z) < 2 * LEAST:
        return []
    else:
        unit = math.log1p(floor) if series.kind == TIMED else floor * (abs(float(z.mean())) or 1.0)
        places = [(split.place, split.p) for split in change_points(z, p=p, floor=unit)]
    bounds = [0, *(place for place, _ in places), len(z)]
    means = [value_of(series, z[a:b].mean()) for a, b in pairwise(bounds)]
    found = []
    for (place, chance), before, after in zip(places, means, means[1:], strict=False):
        up = after > before
        beyond = (means[-1] - before) * (1 if up else -1) > floor * abs(before)
        found.append(Change(place, before, after, chance, verdict(series, up=up), beyond))
    return found


def verdict(series: Series, *, up: bool) -> str:
    """The word for more of this metric, or for less."""
    return VERDICTS[series.kind][0 if up != (series.better == "higher") else 1]


def floor_of(series: Series, floors: Floors) -> float:
    """The relative change that nobody is told of; `floors` are those of the selftest."""
    if series.kind == TIMED:
        return max(FLOOR, floors.of(series.machine, of_cell(series.cell, series.metric)))
    return SCORE_FLOOR if series.kind == SCORE else 0.0


def scaled(series: Series, points: Sequence[Point] | None = None) -> Array:
    """What is judged: logarithms of times, else the values themselves, (n,)."""
    values = np.array([point.value for point in points or series.points])
    return np.log(values) if series.kind == TIMED else values


def value_of(series: Series, z: float) -> float:
    """Back from what is judged."""
    return math.exp(z) if series.kind == TIMED else float(z)
