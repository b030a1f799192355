"""Records as series: one point a commit, for each metric of each cell.

A series holds only what may be compared. Where the machine, the data, the backend or the version of
a definition changed, a new series of the same cell and metric begins. Times that their own record
calls invalid are no points.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.report.compare.cells import by_process, circumstances, differences, name_of
from bench.report.compare.metrics import CALL, exact, score
from bench.report.compare.statistics import typical
from bench.report.history.timeline import Commit, Timeline
from bench.report.noise import Z, t_half
from bench.store import Record
from bench.store.record import created

TIMED, SCORE, EXACT = "timed", "score", "exact"
INTERVALS = {CALL: ("timing", "ci_low_s", "ci_high_s")}
FIRST = ("latency", "ttft_ci_low_s", "ttft_ci_high_s")


@dataclass(frozen=True)
class Point:
    """A metric at one commit: seconds, a score or a count, with its 95 % interval where known.

    `processes` are raw samples of each process (times), `seeds` the score of each seed.
    """

    commit: Commit
    value: float
    low: float | None = None
    high: float | None = None
    processes: tuple[tuple[float, ...], ...] = ()
    seeds: Mapping[int, float] | None = None

    @property
    def n(self) -> int:
        """Processes or seeds that the value stands for."""
        return len(self.processes) or len(self.seeds or ()) or 1


@dataclass(frozen=True, eq=False)
class Series:
    """Comparable points of a metric of a cell, oldest first.

    `since` is None in the newest series of its cell and metric, and else says in which way the
    newest is not comparable with this one.
    """

    cell: str
    record: Record  # the newest one, for names
    metric: str
    kind: str  # TIMED, SCORE or EXACT
    better: str  # lower, higher, or nothing where neither is
    points: tuple[Point, ...]
    since: str | None = None

    @property
    def unit(self) -> str:
        """As `Finding` calls it."""
        return {TIMED: "s", EXACT: "exact"}.get(self.kind, self.metric)

    @property
    def machine(self) -> str | None:
        """The key of the machine that it is of."""
        return circumstances(self.record)["machine"]

    @property
    def last(self) -> Point:
        return self.points[-1]

    @property
    def varies(self) -> bool:
        """Whether there is anything to see: noise, or an exact figure that was not always this."""
        return self.kind != EXACT or len({point.value for point in self.points}) > 1


Found = tuple[str, str, list[Point]]  # kind, better direction, points


def build(records: Sequence[Record], timeline: Timeline) -> list[Series]:
    """All series of the records that ran to their end, the newest one of a cell and metric last."""
    cells: dict[str, list[tuple[Commit, Record]]] = {}
    for record in records:
        commit = timeline.commit(record)
        if commit is not None and record["status"] == "ok":
            cells.setdefault(name_of(record), []).append((commit, record))
    found: list[Series] = []
    for name in sorted(cells):
        whole = sorted(cells[name], key=lambda pair: (pair[0], created(pair[1])))
        found += _of_cell(name, whole)
    return found


def _of_cell(name: str, pairs: Sequence[tuple[Commit, Record]]) -> list[Series]:
    parts = _comparable(pairs)
    newest = circumstances(parts[-1][-1][1])
    made: dict[str, list[Series]] = {}
    for part in parts:
        record = part[-1][1]
        reason = differences(circumstances(record), newest)
        for metric, (kind, better, points) in _metrics(part).items():
            for run in _runs(points) if kind == SCORE else [points]:
                series = Series(name, record, metric, kind, better, tuple(run), reason)
                made.setdefault(metric, []).append(series)
    return [
        _marked(series, last=place == len(found) - 1)
        for found in made.values()
        for place, series in enumerate(found)
    ]


def _marked(series: Series, *, last: bool) -> Series:
    since = None if last else series.since or "no seed was run in all of it"
    return replace(series, since=since)


def _comparable(pairs: Sequence[tuple[Commit, Record]]) -> list[list[tuple[Commit, Record]]]:
    """Parts whose records may be compared, that with the newest commit last."""
    parts: list[list[tuple[Commit, Record]]] = []
    for pair in pairs:
        here = circumstances(pair[1])
        fitting = [p for p in reversed(parts) if not differences(circumstances(p[-1][1]), here)]
        if fitting:
            fitting[0].append(pair)
        else:
            parts.append([pair])
    return sorted(parts, key=lambda part: part[-1][0])


def invalid(record: Record) -> bool:
    """Whether the record says of its own times that they are known too badly."""
    return (record.get("validity") or {}).get("valid") is False


def _metrics(part: Iterable[tuple[Commit, Record]]) -> dict[str, Found]:
    """The points of every metric by its name."""
    commits: dict[str, tuple[Commit, list[Record]]] = {}
    for commit, record in part:
        commits.setdefault(commit.key, (commit, []))[1].append(record)
    found: dict[str, Found] = {}
    for commit, records in commits.values():
        held = [record for record in records if not invalid(record)]
        for metric, samples in by_process(held).items():
            point = _timed(commit, metric, samples, held)
            found.setdefault(metric, (TIMED, "lower", []))[2].append(point)
        for metric, value in exact(records[-1]).items():
            found.setdefault(metric, (EXACT, "", []))[2].append(Point(commit, value))
        scored = [(record, named) for record in records if (named := score(record))]
        if scored:
            metric, better, _ = scored[-1][1]
            found.setdefault(metric, (SCORE, better, []))[2].append(_scored(commit, scored))
    return found


def _timed(
    commit: Commit, metric: str, samples: Sequence[Sequence[float]], records: Sequence[Record]
) -> Point:
    """Geometric mean of the processes' medians; t interval of several, else that of the record."""
    value, low, high = typical(samples), None, None
    if len(samples) > 1:
        logs = [math.log(statistics.median(one)) for one in samples]
        half = t_half(logs)
        low, high = value * math.exp(-half), value * math.exp(half)
    elif len(records) == 1:
        section, *names = INTERVALS.get(metric, FIRST)
        part: Mapping[str, Any] = records[0].get(section) or {}  # type: ignore[assignment]
        low, high = (part.get(name) for name in names)
    return Point(commit, value, low, high, tuple(tuple(one) for one in samples))


def _scored(commit: Commit, found: Sequence[tuple[Record, tuple[str, str, float]]]) -> Point:
    """Mean over seeds with its t interval; of one seed, the interval over test items."""
    values: dict[int, list[float]] = {}
    for record, (_, _, value) in found:
        values.setdefault(int(record["cell"]["seed"]), []).append(value)
    seeds = {seed: statistics.fmean(repeated) for seed, repeated in values.items()}
    error = (found[-1][0].get("quality") or {}).get("stderr")
    return _over_seeds(Point(commit, 0.0, seeds=seeds), set(seeds), Z * error if error else None)


def _over_seeds(point: Point, chosen: set[int], half: float | None) -> Point:
    values = {seed: value for seed, value in (point.seeds or {}).items() if seed in chosen}
    mean = statistics.fmean(values.values())
    if len(values) > 1:
        half = t_half(list(values.values()))
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return Point(point.commit, mean, low, high, seeds=values)


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    """Stretches in which every commit has the same seeds: what they share, newest first to grow."""
    runs: list[list[Point]] = []
    shared: list[set[int]] = []
    for point in reversed(points):
        seeds = set(point.seeds or ())
        if runs and shared[-1] & seeds:
            runs[-1].append(point)
            shared[-1] &= seeds
        else:
            runs.append([point])
            shared.append(seeds)
    found = []
    for run, seeds in zip(reversed(runs), reversed(shared), strict=True):
        found.append([_restricted(point, seeds) for point in reversed(run)])
    return found


def _restricted(point: Point, seeds: set[int]) -> Point:
    """The point over some of its seeds."""
    if set(point.seeds or ()) == seeds:
        return point
    return _over_seeds(point, seeds, None)
