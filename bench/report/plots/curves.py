"""Learning curves against what was read, seconds and FLOPs: training loss, and scores on the way.

Losses are those of each row's own objective; scores on validation, where they were taken, are the
same for all, so that "better at equal time" and "better at equal tokens" can be read from them.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BadInput
from bench.report.heading import context
from bench.report.heads import ARROWS, metric_of
from bench.report.labels import label
from bench.report.plots.figure import Request
from bench.report.plots.palette import Look, Named, Palette
from bench.report.plots.placing import Label, label_ends
from bench.report.plots.style import canvas, logarithmic, save
from bench.report.select import Selection, select
from bench.store.record import Record

NEEDS = "a learning curve (python -m bench scenario=quality)"
ARTEFACT = "curve.json"
SMOOTH = 5  # points of a curve that are averaged: batches differ more than models do
SEEDS = "Thick: mean over seeds. Thin: each seed."
COOLED = (
    "Schedules end at the last point: before it a score is worse than one of a run ended there."
)
COSTS = {"items": "items read", "seconds": "seconds of training", "flops": "FLOPs of training"}
Curve = Mapping[str, Any]
Points = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class View:
    """What a figure of curves shows: `part` of each curve against `cost`."""

    cost: str  # "items", "seconds" or "flops"
    part: str  # "loss" or "validation"
    tokens: bool = False  # whether items are counted in tokens

    def points(self, curve: Curve) -> Points | None:
        """Costs and values of a curve, or None where it has them not."""
        found: Curve = curve if self.part == "loss" else curve.get("validation") or {}
        value = found.get("loss" if self.part == "loss" else "value")
        cost = found.get("seconds" if self.cost == "seconds" else "items")
        if not value or not cost:
            return None
        counted = "tokens" if self.tokens else ""
        name = {"flops": "flops", "items": counted}.get(self.cost, "")
        factor = curve.get(f"{name}_per_item") if name else 1
        if not factor:
            return None
        return np.asarray(cost, dtype=float) * factor, np.asarray(value, dtype=float)

    @property
    def unit(self) -> str:
        """The words at the axis."""
        return "tokens read" if self.cost == "items" and self.tokens else COSTS[self.cost]


def draw(request: Request) -> list[Path]:
    """Figures for each block of records with curves: of the loss, and of scores on the way."""
    paths: list[Path] = []
    palette = Palette(request.records)
    trained = [r for r in request.records if r["cell"]["scenario"] == "quality"]
    seen: dict[str, int] = defaultdict(int)
    for selection in select([r for r in trained if r["status"] == "ok"]):
        curves: dict[Named, list[Curve]] = {}
        for row in selection.current:
            name = Named(label(row, selection.current), row.family, row.model)
            found = [c for r in row.records() if (c := curve_of(r, request.roots))]
            if found:
                curves[name] = found
        if not curves:
            continue
        looks = palette.looks(list(curves))
        seen[selection.key.task] += 1
        number = seen[selection.key.task]
        stem = f"curves-{selection.key.task}" + (f"-{number}" if number > 1 else "")
        tokens = all(c.get("tokens_per_item") for found in curves.values() for c in found)
        for view in (View(c, part, tokens) for part in ("loss", "validation") for c in COSTS):
            shown = {
                row: points
                for row, found in curves.items()
                if (points := [p for c in found if (p := view.points(c))])
            }
            if shown:
                checks = "" if view.part == "loss" else "-checks"
                file = f"{stem}{checks}-{view.cost}"
                paths += _draw(selection, shown, looks, view, request, file)
    return paths


def curve_of(record: Record, roots: Sequence[Path]) -> Curve | None:
    """The curve in a record, or in the file that earlier versions kept beside it."""
    if curve := record.get("curve"):
        return curve
    for root in roots:
        path = root / record["id"] / ARTEFACT
        if path.is_file():
            try:
                return dict(json.loads(path.read_bytes()))
            except (OSError, ValueError) as error:
                raise BadInput(f"the learning curve '{path}' cannot be read ({error})") from error
    return None


def _draw(
    selection: Selection, curves: Mapping[Named, list[Points]], looks: Mapping[str, Look],
    view: View, request: Request, name: str,
) -> list[Path]:  # fmt: skip
    metric, better = metric_of(selection)
    shown = "training loss" if view.part == "loss" else f"{metric} on validation"
    title = f"{selection.key.task}: {shown} against {view.unit}"
    several = any(len(found) > 1 for found in curves.values())
    notes = ([SEEDS] if several else []) + ([COOLED] if view.part == "validation" else [])
    caption = context(selection) + ("\n" + " ".join(notes) if notes else "")
    with canvas(title, caption) as (figure, axes):
        axes.set_xlabel(view.unit)
        loss = "training loss (nats of its own objective)"
        axes.set_ylabel(loss if view.part == "loss" else f"{shown} {ARROWS.get(better, '')}")
        labels = []
        for row, found in curves.items():
            look = looks[row.label]
            smooth = SMOOTH if view.part == "loss" else 1
            point = {} if view.part == "loss" else {**look.point, "linestyle": look.dash}
            for points in found if len(found) > 1 else ():
                axes.plot(*_smoothed(points, smooth), color=look.color, alpha=0.3, linewidth=1.5)
            x, y = _smoothed(_mean(found), smooth)
            axes.plot(x, y, **(point or {"color": look.color, "linestyle": look.dash}))
            labels.append(Label(x[-1], y[-1], row.label, look.ink))
        logarithmic(axes, "x")
        label_ends(axes, labels)
        return save(figure, request.folder, name, request.formats)


def _mean(curves: Sequence[Points]) -> Points:
    """Mean over seeds: point by point where they read the same items, which take other seconds.

    Trainings that end by the clock have other numbers of points: they are read off on one grid.
    """
    lengths = {len(x) for x, _ in curves}
    if len(lengths) == 1:
        x, y = (np.mean([curve[side] for curve in curves], axis=0) for side in (0, 1))
        return x, y
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    x = np.linspace(first, last, min(lengths))
    return x, np.mean([np.interp(x, *curve) for curve in curves], axis=0)


def _smoothed(points: Points, width: int) -> Points:
    x, y = points
    width = min(width, len(y))
    return x[width - 1 :], np.convolve(y, np.ones(width) / width, mode="valid")
