"""Learning curves: training loss against what was read, and against seconds."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BadInput
from bench.report.heading import context
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
Curve = Mapping[str, Any]


def draw(request: Request) -> list[Path]:
    """Two figures for each block of records with curves."""
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
        for against in ("items", "seconds"):
            paths += _draw(selection, curves, looks, against, request, f"{stem}-{against}")
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
    selection: Selection, curves: Mapping[Named, list[Curve]], looks: Mapping[str, Look],
    against: str, request: Request, name: str,
) -> list[Path]:  # fmt: skip
    unit = "items read" if against == "items" else "seconds of training"
    title = f"{selection.key.task}: training loss against {unit}"
    several = any(len(found) > 1 for found in curves.values())
    caption = context(selection) + (f"\n{SEEDS}" if several else "")
    with canvas(title, caption) as (figure, axes):
        axes.set_xlabel(unit)
        axes.set_ylabel("training loss (nats of its own objective)")
        labels = []
        for row, found in curves.items():
            look = looks[row.label]
            for curve in found if len(found) > 1 else ():
                axes.plot(*_smoothed(curve, against), color=look.color, alpha=0.3, linewidth=1.5)
            x, y = _smoothed(_mean(found), against)
            axes.plot(x, y, color=look.color, linestyle=look.dash)
            labels.append(Label(x[-1], y[-1], row.label, look.ink))
        logarithmic(axes, "x")
        label_ends(axes, labels)
        return save(figure, request.folder, name, request.formats)


def _mean(curves: Sequence[Curve]) -> Curve:
    """Mean over seeds, which read the same items at the same points."""
    length = min(len(curve["items"]) for curve in curves)
    return {
        name: np.mean([curve[name][:length] for curve in curves], axis=0)
        for name in ("items", "seconds", "loss")
    }


def _smoothed(curve: Curve, against: str) -> tuple[np.ndarray, np.ndarray]:
    x, loss = np.asarray(curve[against], dtype=float), np.asarray(curve["loss"], dtype=float)
    width = min(SMOOTH, len(loss))
    kernel = np.ones(width) / width
    return x[width - 1 :], np.convolve(loss, kernel, mode="valid")
