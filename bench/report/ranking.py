"""The order of rows and what stands in bold: ranked within a size and an objective."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.report.differences import RULES, leaders
from bench.report.heads import SPEEDS, lookup
from bench.report.layout import BOLD, Cell, Column, Measure, Notes, Row
from bench.report.noise import Score

READOUTS = ("head", "log p(x|y)", "bound")


def objective_of(kind: str, score: Score | None, quality: Mapping[str, Any]) -> str:
    """What a row is ranked within: exact scores and bounds apart, classifiers by their readout."""
    if score is None:
        return ""
    if kind == "classify":
        return str(lookup(quality, ("readout",)) or "head")
    return "bound" if score.bound else "exact"


def ranked(
    rows: list[Row], columns: tuple[Column, ...], scores: Mapping[int, Score], notes: Notes
) -> list[Row]:
    """Rows by size and objective, best first, the best of each in bold."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.identity["size"], row.identity["objective"]), []).append(row)
    sizes = list(dict.fromkeys(row.identity["size"] for row in rows))
    sizes.sort(key=lambda size: _smallest(size, rows, columns))
    order = ("exact", *READOUTS)

    def place(group: tuple[str, str]) -> tuple[int, int, str]:
        rank = order.index(group[1]) if group[1] in order else len(order)
        return sizes.index(group[0]), rank, group[1]

    result: list[Row] = []
    for group in sorted(groups, key=place):
        members = sorted(groups[group], key=lambda row: _by_score(row, scores))
        result += _bold(members, columns, scores, notes)
    return result


def _by_score(row: Row, scores: Mapping[int, Score]) -> tuple[float, str]:
    summary = scores.get(row.identity["index"])
    if summary is None:
        return float("inf"), row.cells[0].text
    return (1 if summary.better == "lower" else -1) * summary.value, row.cells[0].text


def _bold(
    rows: list[Row], columns: tuple[Column, ...], scores: Mapping[int, Score], notes: Notes
) -> list[Row]:
    chosen: set[tuple[int, int]] = set()
    for place, column in enumerate(columns):
        cells = [row.cells[place] for row in rows]
        if column.key == "score":
            found = {
                i: scores[row.identity["index"]]
                for i, row in enumerate(rows)
                if row.identity["index"] in scores and _counts(row.cells[place])
            }
            best, rules = leaders(found)
            for rule in sorted(rules):
                notes.add(
                    f"{BOLD}: the best of its objective with those inside the noise, "
                    f"{RULES[rule]}, corrected after Holm; a row alone in its objective is not "
                    "ranked."
                )
        elif column.key in (*SPEEDS["language"], "sample", "memory", "state"):
            best = _best_measured(cells)
        else:
            best = set()
        chosen |= {(index, place) for index in best}
    return [
        replace(row, cells=tuple(replace(cell, bold=(index, place) in chosen)
                                 for place, cell in enumerate(row.cells)))
        for index, row in enumerate(rows)
    ]  # fmt: skip


def _best_measured(cells: Sequence[Cell]) -> set[int]:
    """The best of a measured column, with those whose intervals reach it; ties where exact."""
    found = {i: c.measures[0] for i, c in enumerate(cells)
             if _counts(c)}  # fmt: skip
    values = {i: m.value for i, m in found.items() if m.value is not None}
    units = {(found[i].unit, found[i].label) for i in values}
    if len(values) < 2 or len(units) > 1:
        return set()
    sign = 1 if found[next(iter(values))].better == "lower" else -1
    best = min(values, key=lambda i: sign * values[i])
    chosen = set()
    for index, value in values.items():
        spread = sum(_half(found[i]) ** 2 for i in (index, best)) ** 0.5
        if index == best or abs(value - values[best]) <= spread:
            chosen.add(index)
    return chosen


def _counts(cell: Cell) -> bool:
    """Whether a cell takes part in the ranking: a valid number of the present source."""
    return cell.status == "ok" and cell.valid and not cell.stale and bool(cell.measures)


def _half(measure: Measure) -> float:
    return 0.0 if measure.low is None or measure.high is None else (measure.high - measure.low) / 2


def _smallest(size: str, rows: Sequence[Row], columns: Sequence[Column]) -> float:
    place = [column.key for column in columns].index("parameters")
    cells = [row.cells[place] for row in rows if row.identity["size"] == size]
    counts = [m.value for c in cells for m in c.measures[:1] if m.value is not None]
    return min(counts, default=float("inf"))


def rule_between(above: Row | None, row: Row) -> bool:
    """A line between sizes, objectives and kinds of rows."""
    names = ("size", "objective")
    return above is not None and (
        above.kind != row.kind
        or (row.kind == "model" and any(above.identity[n] != row.identity[n] for n in names))
    )
