"""Quality against throughput, and against memory: who is beaten by nobody on both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.report.formats import significant
from bench.report.heads import METRICS
from bench.report.layout import Block, Cell, Measure
from bench.report.plots.figure import Request
from bench.report.plots.palette import Look, Named, Palette
from bench.report.plots.placing import Label, label_ends, place_labels
from bench.report.plots.style import canvas, logarithmic, save
from bench.report.table import build

GREY = "#666666"
NEEDS = "both a score and a speed or a peak of memory (python -m bench)"
# Column of the table, how its axis reads and in which unit.
COSTS = {
    "train": ("training throughput ({unit}/s)", 1.0),
    "memory": ("peak memory of a training step (MiB)", 2**-20),
}
BARS: dict[str, Any] = {"markersize": 15, "elinewidth": 3, "capsize": 7, "capthick": 3}
Rival = tuple[str, float]  # name and score
FAR_ROOM = 0.2  # share of the scale that what lies off it is drawn in
FAR = 3.0  # as many times the range of the others: a single score beyond is off the scale


@dataclass(frozen=True)
class Point:
    """A row of the table: score and cost with their 95 % intervals."""

    name: Named
    score: float
    score_low: float
    score_high: float
    cost: float
    cost_low: float
    cost_high: float
    bound: bool


@dataclass(frozen=True)
class Axes:
    """What a figure's axes stand for."""

    task: str
    metric: str
    unit: str
    column: str
    score_lower: bool

    @property
    def cost_lower(self) -> bool:
        return self.column == "memory"


def draw(request: Request) -> list[Path]:
    """A figure for each block of the table and each cost."""
    table, palette = build(request.records, request.roots), Palette(request.records)
    paths: list[Path] = []
    seen: dict[str, int] = {}
    for block in table.blocks:
        for column in COSTS:
            points, axes = points_of(block, column)
            if axes is None or len(points) < 2:
                continue
            name = f"pareto-{axes.task}-{column}"
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                name += f"-{seen[name]}"
            title = f"{axes.task}: quality against {'memory' if axes.cost_lower else 'speed'}"
            caption = f"{block.title}\n{block.context or table.context}\n"
            caption += "Bars: 95 % intervals. Dashed: the front, which no other row beats on both."
            looks = palette.looks([point.name for point in points])
            with canvas(title, caption) as (figure, drawn):
                _draw(drawn, points, axes, looks, _rivals(block))
                paths += save(figure, request.folder, name, request.formats)
    return paths


def points_of(block: Block, column: str) -> tuple[list[Point], Axes | None]:
    """Models of a block that have both a score and a figure in `column`."""
    found, axes = [], None
    for row in block.rows:
        cells = {column.key: cell for column, cell in zip(block.columns, row.cells, strict=True)}
        score, cost = _measure(cells.get("score")), _measure(cells.get(column))
        if row.kind != "model" or score is None or cost is None:
            continue
        name = Named(row.cells[0].text, row.identity["family"], row.identity["model"])
        found.append(Point(name, *_interval(score), *_interval(cost), bound=score.bound))
        axes = Axes(
            str(block.identity["task"]), score.metric, cost.unit.removesuffix("/s"), column,
            score.better == "lower",
        )  # fmt: skip
    return found, axes


def _rivals(block: Block) -> list[Rival]:
    """Plain rivals of the models with their scores."""
    place = [column.key for column in block.columns].index("score")
    rows = [(row, _measure(row.cells[place])) for row in block.rows if row.kind == "baseline"]
    return [(str(row.identity["model"]), float(m.value or 0)) for row, m in rows if m]


def _measure(cell: Cell | None) -> Measure | None:
    """What was measured, unless there is no number, or one of other source than the block's."""
    if cell is None or cell.stale or not cell.measures or cell.measures[0].value is None:
        return None
    return cell.measures[0]


def _interval(measure: Measure) -> tuple[float, float, float]:
    value = float(measure.value or 0)
    low, high = (value if bound is None else bound for bound in (measure.low, measure.high))
    return value, low, high


def front(points: Sequence[Point], *, score_lower: bool, cost_lower: bool) -> list[Point]:
    """Those that no other one is at least as good as on both axes and better on one, by cost."""

    def key(point: Point) -> tuple[float, float]:
        return (
            point.cost if cost_lower else -point.cost,
            point.score if score_lower else -point.score,
        )

    best: list[Point] = []
    for point in sorted(points, key=key):
        if not best or key(point)[1] < key(best[-1])[1]:
            best.append(point)
    return best


def off_scale(points: Sequence[Point], *, score_lower: bool) -> Point | None:
    """The worst point, where its score is so far off that the others would share a corner."""
    order = sorted(points, key=lambda point: point.score, reverse=score_lower)
    worst, others = order[0], [point.score for point in order[1:]]
    if len(others) < 2 or abs(worst.score - others[0]) < FAR * (max(others) - min(others)):
        return None
    return worst


def _draw(
    axes: Any, points: Sequence[Point], what: Axes, looks: dict[str, Look],
    rivals: Sequence[Rival],
) -> None:  # fmt: skip
    label, scale = COSTS[what.column]
    axes.set_xlabel(label.format(unit=what.unit) + _better(what.cost_lower, "left", "right"))
    words = METRICS.get(what.metric, (what.metric.replace("_", " "),))[0]
    axes.set_ylabel(words + _better(what.score_lower, "down", "up"))
    far = off_scale(points, score_lower=what.score_lower)
    near = [point for point in points if point is not far]
    best = front(points, score_lower=what.score_lower, cost_lower=what.cost_lower)
    for point in near:
        axes.errorbar(
            point.cost * scale, point.score, **looks[point.name.label].point, **BARS,
            xerr=[[(point.cost - point.cost_low) * scale],
                  [(point.cost_high - point.cost) * scale]],
            yerr=[[point.score - point.score_low], [point.score_high - point.score]],
        )  # fmt: skip
    labels = [
        Label(p.cost * scale, p.score, _text(p), looks[p.name.label].ink) for p in near
    ]  # fmt: skip
    axes.margins(x=0.1)  # room for labels
    _lines_of(axes, near, rivals)
    low, high = axes.get_ylim()
    if what.metric == "accuracy":
        high = min(1.0, high)
    if far is not None:
        room = FAR_ROOM * (high - low)
        low, high = (low, high + room) if what.score_lower else (low - room, high)
        at = high - room / 2 if what.score_lower else low + room / 2
        labels.append(_far(axes, far, at, what, looks[far.name.label]))
    axes.set_ylim(low, high)
    line = np.array([[p.cost * scale for p in best], [p.score for p in best]])
    axes.plot(*line, color="#999999", linestyle="--", linewidth=2, zorder=1)
    logarithmic(axes, "x")
    _names(axes, near, rivals)
    level = [(np.array(axes.get_xlim()), np.full(2, v)) for _, v in _close(near, rivals)]
    place_labels(axes, labels, [(line[0], line[1]), *_bars(near, scale), *level])


def _text(point: Point) -> str:
    return ("≤ " if point.bound else "") + point.name.label


def _far(axes: Any, far: Point, at: float, what: Axes, look: Look) -> Label:
    """A point off the scale: at its cost, with an arrow outwards and its score in words."""
    x = far.cost * COSTS[what.column][1]
    axes.plot(x, at, **look.point, markersize=BARS["markersize"])
    arrow = "↑" if what.score_lower else "↓"
    text = f"{_text(far)}: {significant(far.score)}, off the scale {arrow}"
    return Label(x, at, text, look.ink)


def _bars(points: Sequence[Point], scale: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Both bars of every point, which labels should not cover."""
    found = []
    for p in points:
        found.append((np.array([p.cost_low, p.cost_high]) * scale, np.full(2, p.score)))
        found.append((np.full(2, p.cost * scale), np.array([p.score_low, p.score_high])))
    return found


def _better(lower: bool, low: str, high: str) -> str:
    arrows = {"left": "←", "right": "→", "down": "↓", "up": "↑"}
    return f"   better {arrows[low if lower else high]}"


def _close(points: Sequence[Point], rivals: Sequence[Rival]) -> list[Rival]:
    """Plain rivals near enough to the models to be of interest."""
    low = min(point.score_low for point in points)
    high = max(point.score_high for point in points)
    room = 0.25 * (high - low)
    return [(name, value) for name, value in rivals if low - room <= value <= high + room]


def _lines_of(axes: Any, points: Sequence[Point], rivals: Sequence[Rival]) -> None:
    for _, value in _close(points, rivals):
        axes.axhline(value, color="#BBBBBB", linewidth=2, zorder=0)


def _names(axes: Any, points: Sequence[Point], rivals: Sequence[Rival]) -> None:
    right = axes.get_xlim()[1]
    label_ends(axes, [Label(right, value, name, GREY) for name, value in _close(points, rivals)])
