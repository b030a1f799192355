"""The end of a series against the previous commit, and against the pinned release.

The last commit is held against the one before it. For the pinned release it is the level at the end
against the level there: the mean of up to `LEVEL_OF` commits that no change divides, those that end
with the pinned one and those that end the series. So what crept in by steps too small to be seen is
found. A step is called if its 95 % interval lies wholly beyond the floor and Student's test with
the noise of the series agrees (after Holm over all series). Where a series is too short to know its
noise, the processes or seeds of both commits are judged as `compare` does: these times and these
scores are each corrected by themselves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from bench.report.compare.floors import Floors
from bench.report.compare.scores import BySeed, judge_scores
from bench.report.compare.statistics import (
    LEVEL,
    WITHIN,
    Judgement,
    Processes,
    holm,
    judge,
    judge_exact,
    verdict_of,
)
from bench.report.formats import percent
from bench.report.history.changes import Change, floor_of, scaled, value_of, verdict
from bench.report.history.divisive import Array
from bench.report.history.noise import LEAST_STEPS, noise
from bench.report.history.series import EXACT, SCORE, TIMED, Point, Series
from bench.report.history.timeline import Commit

LEVEL_OF = 5  # commits whose mean is the level at a commit
Key = tuple[Series, str]  # a series, and what it is held against


@dataclass(frozen=True)
class Step:
    """The end of a series against `reference`."""

    reference: Commit
    base: float
    head: float
    judgement: Judgement


@dataclass(frozen=True)
class Pair:
    """Two ends to be compared: z of the commits of each, and the last point of the base.

    The noise is taken from `stretches` of one level each.
    """

    series: Series
    reference: Point
    base: Array
    head: Array
    stretches: tuple[Array, ...]

    @property
    def step(self) -> float:
        """Head less base, in the units of z."""
        return float(self.head.mean() - self.base.mean())


def previous(series: Series, changes: Sequence[Change]) -> Pair | None:
    """The last commit and the one before it, where there is one."""
    z = scaled(series)
    if len(z) < 2:
        return None
    return Pair(series, series.points[-2], z[-2:-1], z[-1:], _stretches(z, changes))


def since(series: Series, changes: Sequence[Change], at: int) -> Pair:
    """The level at the end and that at the pinned commit, which stands at `at`."""
    z = scaled(series)
    bounds = [0, *(one.place for one in changes)]
    start = max(bound for bound in bounds if bound <= at)
    base = z[max(start, at + 1 - LEVEL_OF) : at + 1]
    head = z[max(bounds[-1], at + 1, len(z) - LEVEL_OF) :] if at + 1 < len(z) else base
    return Pair(series, series.points[at], base, head, _stretches(z, changes))


def apart(series: Series, changes: Sequence[Change], point: Point) -> Pair:
    """The level at the end and a point that is not of the series."""
    z = scaled(series)
    bounds = [0, *(one.place for one in changes)]
    head = z[max(bounds[-1], len(z) - LEVEL_OF) :]
    return Pair(series, point, scaled(series, [point]), head, _stretches(z, changes))


def _stretches(z: Array, changes: Sequence[Change]) -> tuple[Array, ...]:
    """What no change divides, without the last commit, which is on trial."""
    bounds = [0, *(one.place for one in changes), len(z)]
    return tuple(z[a : min(b, len(z) - 1)] for a, b in pairwise(bounds))


def steps(pairs: Mapping[Key, Pair], floors: Floors) -> dict[Key, Step]:
    """A verdict for every pair, judged together so that the error is that of the whole report."""
    found: dict[Key, Judgement] = {}
    tests: dict[Key, tuple[float, float]] = {}
    for key, pair in pairs.items():
        if pair.series.kind == EXACT:
            found[key] = judge_exact(pair.reference.value, pair.series.last.value)
        elif pair.reference is pair.series.last:
            found[key] = Judgement("same", 1.0, 1.0, 1.0, 1.0, 0.0, 1, 1, "is the last commit")
        elif (known := noise(pair.stretches)).steps >= LEAST_STEPS:
            tests[key] = known.difference(pair.step, len(pair.base), len(pair.head), LEVEL)
    p = holm({str(place): test[0] for place, test in enumerate(tests.values())})
    for place, (key, (_, half)) in enumerate(tests.items()):
        found[key] = _by_noise(pairs[key], half, p[str(place)], floors)
    short = {key: _ends(pair) for key, pair in pairs.items() if key not in found}
    found |= _by_samples(short, floors)
    return {key: _made(short.get(key, pair), found[key]) for key, pair in pairs.items()}


def _ends(pair: Pair) -> Pair:
    """The same with one commit on each side, whose samples are to be judged."""
    base, head = (scaled(pair.series, [point]) for point in (pair.reference, pair.series.last))
    return replace(pair, base=base, head=head)


def _made(pair: Pair, found: Judgement) -> Step:
    base, head = (value_of(pair.series, float(side.mean())) for side in (pair.base, pair.head))
    return Step(pair.reference.commit, base, head, found)


def _by_noise(pair: Pair, half: float, p: float, floors: Floors) -> Judgement:
    """The verdict of a step by its interval and its p."""
    step, floor = pair.step, floor_of(pair.series, floors)
    if pair.series.kind == TIMED:
        ratio, low, high = (math.exp(step + sign * half) for sign in (0, -1, 1))
        within = max(WITHIN, floor)
    else:
        base = abs(float(pair.base.mean())) or 1.0
        ratio, low, high = (1 + (step + sign * half) / base for sign in (0, -1, 1))
        within = floor
    said = f"{percent(ratio - 1)} [{percent(low - 1)}, {percent(high - 1)}]"
    return verdict_of(
        (ratio, low, high), p, (len(pair.base), len(pair.head)), floor=floor, within=within,
        said=said, words=(verdict(pair.series, up=True), verdict(pair.series, up=False)),
    )  # fmt: skip


def _by_samples(pairs: Mapping[Key, Pair], floors: Floors) -> dict[Key, Judgement]:
    """Processes and seeds of two commits, judged as `compare` does."""
    names = {str(place): key for place, key in enumerate(pairs)}
    timed: dict[str, tuple[Processes, Processes]] = {}
    scored: dict[str, tuple[BySeed, BySeed, str]] = {}
    for name, key in names.items():
        series, before, after = key[0], pairs[key].reference, key[0].last
        if series.kind == SCORE:
            scored[name] = before.seeds or {}, after.seeds or {}, series.better
        else:
            timed[name] = before.processes, after.processes
    known = {name: floor_of(names[name][0], floors) for name in timed}
    judged = judge(timed, floors=known) | judge_scores(scored)
    return {names[name]: judgement for name, judgement in judged.items()}
