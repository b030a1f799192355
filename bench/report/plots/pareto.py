"""Quality against throughput, and against memory: who is beaten by nobody on both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

from bench.report.heads import METRICS
from bench.report.plots.figure import Request
from bench.report.plots.style import canvas, label_ends, logarithmic, look, place_labels, save
from bench.report.table import build
from bench.report.tidy import to_frame

GREY = "#777777"
NEEDS = "both a score and a speed or a peak of memory (python -m bench)"
# Column of the table, what the figure is called, how its axis reads and in which unit.
COSTS = {
    "train": ("training throughput ({unit}/s)", 1.0),
    "memory": ("peak memory of a training step (MiB)", 2**-20),
}


@dataclass(frozen=True)
class Point:
    """A row of the table: score and cost with their 95 % intervals."""

    model: str
    family: str
    score: float
    score_low: float
    score_high: float
    cost: float
    cost_low: float
    cost_high: float
    bound: bool


def draw(request: Request) -> list[Path]:
    """A figure for each block of the table and each cost."""
    table = build(request.records, request.roots)
    frame = to_frame(table)
    paths: list[Path] = []
    seen: dict[str, int] = {}
    for number, block in enumerate(table.blocks):
        rows = frame[frame["block"] == number]
        for column in COSTS:
            points = points_of(rows, column)
            if len(points) < 2:
                continue
            name = f"pareto-{block.identity['task']}-{column}"
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                name += f"-{seen[name]}"
            caption = f"{block.title}\n{block.context or table.context}"
            paths += _draw(points, rows, column, caption, request, name)
    return paths


def points_of(rows: pandas.DataFrame, column: str) -> list[Point]:
    """Models of a block that have both a score and a figure in `column`."""
    models = rows[(rows["row"] == "model") & ~rows["stale"].fillna(False)]
    found = []
    keys = ["model", "size", "backend", "kernel", "compile", "overrides"]
    for _, row in models.groupby(keys, dropna=False, sort=False):
        score, cost = row[row["column"] == "score"], row[row["column"] == column]
        if not (len(score) and len(cost)) or pandas.isna(
            score["value"].iloc[0] + cost["value"].iloc[0]
        ):
            continue
        s, c = score.iloc[0], cost.iloc[0]
        changed = "" if pandas.isna(s["overrides"]) else f" {s['overrides']}"
        found.append(
            Point(f"{s['model']}{changed}", str(s["family"]), *_interval(s), *_interval(c),
                  bool(s["bound"]))
        )  # fmt: skip
    return found


def _interval(row: Any) -> tuple[float, float, float]:
    value = float(row["value"])
    low, high = (value if pandas.isna(row[name]) else float(row[name]) for name in ("low", "high"))
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


def _draw(
    points: Sequence[Point], rows: pandas.DataFrame, column: str, caption: str, request: Request,
    name: str,
) -> list[Path]:  # fmt: skip
    scores = rows[(rows["column"] == "score") & (rows["row"] == "model")]
    metric, score_lower = str(scores["metric"].iloc[0]), scores["better"].iloc[0] == "lower"
    unit = str(rows[rows["column"] == column]["unit"].dropna().iloc[0]).removesuffix("/s")
    label, scale = COSTS[column]
    cost_lower = column == "memory"
    task = str(scores["task"].iloc[0])
    title = f"{task}: quality against {'memory' if cost_lower else 'speed'}"
    with canvas(title, caption) as (figure, axes):
        axes.set_xlabel(label.format(unit=unit) + _better(cost_lower, "left", "right"))
        words = METRICS.get(metric, (metric.replace("_", " "),))[0]
        axes.set_ylabel(words + _better(score_lower, "down", "up"))
        best = front(points, score_lower=score_lower, cost_lower=cost_lower)
        axes.plot(
            [p.cost * scale for p in best], [p.score for p in best],
            color="#999999", linestyle="--", linewidth=2, zorder=1,
        )  # fmt: skip
        for point in points:
            style = look(point.model.split(" ")[0], point.family)
            axes.errorbar(
                point.cost * scale, point.score, color=style.color, marker=style.marker,
                markersize=15, elinewidth=1.5, capsize=0,
                xerr=[[(point.cost - point.cost_low) * scale],
                      [(point.cost_high - point.cost) * scale]],
                yerr=[[point.score - point.score_low], [point.score_high - point.score]],
            )  # fmt: skip
        if metric == "accuracy":
            axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
        logarithmic(axes, "x")
        _baselines(axes, rows, points)
        texts = [
            (p.cost * scale, p.score, ("≤ " if p.bound else "") + p.model,
             look(p.model.split(" ")[0], p.family).color)
            for p in points
        ]  # fmt: skip
        place_labels(axes, texts)
        return save(figure, request.folder, name, request.formats)


def _better(lower: bool, low: str, high: str) -> str:
    arrows = {"left": "←", "right": "→", "down": "↓", "up": "↑"}
    return f"   better {arrows[low if lower else high]}"


def _baselines(axes: Any, rows: pandas.DataFrame, points: Sequence[Point]) -> None:
    """Plain rivals as lines, where they lie near enough to the models to be of interest."""
    low = min(point.score_low for point in points)
    high = max(point.score_high for point in points)
    room = 0.25 * (high - low)
    rivals = rows[(rows["row"] == "baseline") & (rows["column"] == "score")]
    near = rivals[rivals["value"].between(low - room, high + room)]
    for value in near["value"]:
        axes.axhline(value, color="#BBBBBB", linewidth=2, zorder=0)
    right = axes.get_xlim()[1]
    names = [(right, float(rival["value"]), rival["model"], GREY) for _, rival in near.iterrows()]
    label_ends(axes, names, size=15)
