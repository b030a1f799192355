"""Findings of base against head, from records alone."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from bench.report.compare.cells import Cell, layouts, match, obstacle
from bench.report.compare.metrics import exact, of_cell, score, timed
from bench.report.compare.statistics import WITHIN, Judgement, judge, judge_paired
from bench.report.compare.verdict import Finding, gravest_first
from bench.store.record import Record

SCORE_FLOOR = 0.005  # relative change of a score that nobody is told of
Times = dict[tuple[str, str], Judgement]


def compare(
    base: Sequence[Record],
    head: Sequence[Record],
    *,
    floors: Mapping[str, float] | None = None,
    within: float = WITHIN,
    times: Times | None = None,
) -> list[Finding]:
    """Every finding, the gravest first.

    `times` are judgements by cell and metric of samples that were taken in turns and judged on the
    way; without them the times of the records are judged here, once, as independent processes.
    """
    cells = match(base, head)
    comparable = [
        cell for cell in cells if cell.base.good and cell.head.good and not obstacle(cell)
    ]
    if times is None:
        times = _judged(comparable, floors or {}, within)
    found: list[Finding] = []
    for cell in cells:
        found += _of_cell(cell, times) if cell in comparable else [_not_comparable(cell)]
    return gravest_first(found)


def _judged(cells: Iterable[Cell], floors: Mapping[str, float], within: float) -> Times:
    """All times of all cells, judged together so that the error is that of the whole comparison."""
    pairs = {}
    for cell in cells:
        sides = [by_process(side.good) for side in (cell.base, cell.head)]
        for metric in sides[0].keys() & sides[1].keys():
            pairs[cell.name, metric] = (sides[0][metric], sides[1][metric])
    names = {of_cell(cell, metric): (cell, metric) for cell, metric in pairs}
    judged = judge({name: pairs[key] for name, key in names.items()}, floors=floors, within=within)
    return {names[name]: judgement for name, judgement in judged.items()}


def by_process(records: Sequence[Record]) -> dict[str, list[list[float]]]:
    """Samples of each metric by process; children of one fork server are one process."""
    found: dict[str, list[list[float]]] = {}
    for group in layouts(records):
        merged: dict[str, list[float]] = {}
        for record in group:
            for metric, samples in timed(record).items():
                merged.setdefault(metric, []).extend(samples)
        for metric, samples in merged.items():
            found.setdefault(metric, []).append(samples)
    return found


def _not_comparable(cell: Cell) -> Finding:
    """A cell that one side has alone, that failed, or that ran under other circumstances."""
    base, head = cell.base, cell.head
    if head.records and base.good and not head.good:
        reason = head.records[0].get("reason")
        return Finding(cell.name, "result", "worse", f"{cell.name} ran before and failed: {reason}")
    if not base.records:
        return Finding(cell.name, "result", "new", f"{cell.name}: base has no record of it")
    if not head.records:
        why = "is gone: head has no record of it"
    elif not base.good:
        why = f"has no result of base: {base.records[0].get('reason')}"
    else:
        why = f"was not measured alike ({obstacle(cell)})"
    return Finding(cell.name, "result", "not comparable", f"{cell.name} {why}")


def _of_cell(cell: Cell, times: Times) -> list[Finding]:
    found = [
        _timed(cell, metric, judgement)
        for (name, metric), judgement in times.items()
        if name == cell.name
    ]
    return [*found, *_exact(cell), *_scores(cell)]


def _timed(cell: Cell, metric: str, judgement: Judgement) -> Finding:
    sides = [[timed(record).get(metric) for record in side.good] for side in (cell.base, cell.head)]
    base, head = (typical([s for s in samples if s]) for samples in sides)
    return _finding(cell, metric, judgement, "s", base, head)


def typical(processes: Sequence[Sequence[float]]) -> float:
    """One figure of several processes: the geometric mean of their medians."""
    return statistics.geometric_mean([statistics.median(samples) for samples in processes])


def _exact(cell: Cell) -> list[Finding]:
    base, head = (exact(side.good[0]) for side in (cell.base, cell.head))
    found = []
    for metric in base:
        if metric not in head:
            continue
        before, after = base[metric], head[metric]
        same = before == after
        ratio = after / before if before else None
        change = "is unchanged" if same else f"was {before:.0f} and is {after:.0f}"
        found.append(
            Finding(
                cell.name, metric, "same" if same else "changed",
                f"{cell.name}, {metric}: {change}", "exact", before, after, ratio,
                n_base=1, n_head=1, smallest=0.0,
            )
        )  # fmt: skip
    return found


def _scores(cell: Cell) -> list[Finding]:
    """The score by paired seeds."""
    sides: list[dict[int, float]] = [{}, {}]
    named = None
    for values, side in zip(sides, (cell.base, cell.head), strict=True):
        for record in reversed(side.good):  # the newest of a seed wins
            if (found := score(record)) is not None:
                named = found
                values[int(record["cell"]["seed"])] = found[2]
    if named is None or not all(sides):
        return []
    metric, better, _ = named
    judgement = judge_paired(*sides, better=better, floor=SCORE_FLOOR)
    shared = sides[0].keys() & sides[1].keys()
    means = [statistics.fmean(v for s, v in values.items() if s in shared) if shared else None
             for values in sides]  # fmt: skip
    return [_finding(cell, metric, judgement, metric, *means)]


def _finding(
    cell: Cell, metric: str, found: Judgement, unit: str, base: float | None, head: float | None
) -> Finding:
    return Finding(
        cell.name, metric, found.verdict, f"{cell.name}, {metric}: {found.why}", unit, base, head,
        found.ratio, found.low, found.high, found.p, found.n_base, found.n_head, found.smallest,
    )  # fmt: skip
