"""Every cell under the roof of the machine that it ran on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.report.cell_rows import TIMED
from bench.report.heading import context
from bench.report.labels import label
from bench.report.plots.figure import Request
from bench.report.plots.palette import Look, Named, Palette
from bench.report.plots.placing import Label, place_labels
from bench.report.plots.style import canvas, logarithmic, save
from bench.report.roofline import Ceilings, RooflinePoint, find_ceilings, place, where
from bench.report.select import select

NEEDS = "its cost, beside the machine's ceilings (python -m bench scenario=ceilings)"
ROOM = 3  # factor that the axis reaches beyond the points and the ridge
ROOF = "#333333"
EXPLAINED = (
    "Per cent: of what the roof allows. Bars: 95 % intervals of the time; the work is exact."
)
Found = tuple[str, RooflinePoint]  # the label of its row


def draw(request: Request) -> list[Path]:
    """A figure for each scenario of each machine and task."""
    ceilings, palette = find_ceilings(request.records), Palette(request.records)
    paths: list[Path] = []
    seen: dict[str, int] = {}
    for selection in select([r for r in request.records if r["cell"]["scenario"] in TIMED]):
        task, rows = selection.key.task, selection.current
        names = {label(row, rows): Named(label(row, rows), row.family, row.model) for row in rows}
        looks = palette.looks(list(names.values()))
        for scenario in TIMED:
            points = [
                (label(row, rows), point)
                for row in rows
                for record in row.scenarios.get(scenario, [])
                if record["status"] == "ok" and (point := place(record, ceilings)) is not None
            ]
            if not points:
                continue
            name = f"roofline-{task}-{scenario}"
            seen[name] = seen.get(name, 0) + 1
            name += f"-{seen[name]}" if seen[name] > 1 else ""
            title = f"{task}, {scenario}: what the machine allows and what is reached"
            with canvas(title, f"{context(selection)}\n{EXPLAINED}") as (figure, axes):
                _draw(axes, points, ceilings[where(points[0][1].record)], looks)
                paths += save(figure, request.folder, name, request.formats)
    return paths


def interval(point: RooflinePoint) -> tuple[float, float]:
    """Lower and upper bound of FLOP/s: the work is exact, so it is known as well as the time."""
    timing: dict[str, Any] = dict(point.record.get("timing") or {})
    work = point.rate * float(timing["median_s"])
    low, high = timing.get("ci_low_s"), timing.get("ci_high_s")
    return (work / high if high else point.rate), (work / low if low else point.rate)


def _draw(axes: Any, points: Sequence[Found], roof: Ceilings, looks: dict[str, Look]) -> None:
    axes.set_xlabel("FLOPs per byte that operators read and write")
    axes.set_ylabel("GFLOP/s")
    intensities = [point.intensity for _, point in points] + [roof.ridge]
    ends = min(intensities) / ROOM, max(intensities) * ROOM
    x = np.array([ends[0], roof.ridge, ends[1]])
    y = np.minimum(roof.flops_per_s, x * roof.bytes_per_s) / 1e9
    axes.plot(x, y, color=ROOF)
    labels, lines, named = [], [(x, y)], set()
    for name, point in points:
        low, high = (bound / 1e9 for bound in interval(point))
        rate = point.rate / 1e9
        axes.errorbar(
            point.intensity, rate, yerr=[[rate - low], [high - rate]], **looks[name].point,
            markersize=15, elinewidth=3, capsize=9, capthick=3,
        )  # fmt: skip
        lines.append((np.full(2, point.intensity), np.array([low, high])))
        if name not in named:  # seeds of a row stand side by side
            flaw = "" if point.valid else " (invalid)"
            text = f"{name} {100 * point.share:.0f} %{flaw}"
            labels.append(Label(point.intensity, rate, text, looks[name].ink))
        named.add(name)
    axes.set_xlim(*ends)
    for which in ("x", "y"):
        logarithmic(axes, which)
    roofs = f"{roof.flops_per_s / 1e9:.0f} GFLOP/s, {roof.bytes_per_s / 1e9:.0f} GB/s"
    labels.append(Label(roof.ridge, roof.flops_per_s / 1e9, roofs, ROOF))
    axes.set_ylim(top=axes.get_ylim()[1] * 1.6)  # room for the words above the roof
    place_labels(axes, labels, lines)
