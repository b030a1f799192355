"""Every cell under the roof of the machine that it ran on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.report.cell_rows import TIMED, by_heading
from bench.report.plots.figure import Request
from bench.report.plots.style import canvas, logarithmic, look, place_labels, save
from bench.report.roofline import Ceilings, RooflinePoint, find_ceilings, place, where

NEEDS = "its cost, beside the machine's ceilings (python -m bench scenario=ceilings)"
ROOM = 3  # factor that the axis reaches beyond the points and the ridge


def draw(request: Request) -> list[Path]:
    """A figure for each scenario of each machine and task."""
    ceilings = find_ceilings(request.records)
    paths: list[Path] = []
    for number, (heading, records) in enumerate(by_heading(request.records, TIMED).items()):
        groups: dict[tuple[str, str], list[RooflinePoint]] = {}
        for record in records:
            if (point := place(record, ceilings)) is not None:
                key = (record["cell"]["task"], record["cell"]["scenario"])
                groups.setdefault(key, []).append(point)
        for (task, scenario), points in groups.items():
            name = f"roofline-{task}-{scenario}" + (f"-{number + 1}" if number else "")
            title = f"{task}, {scenario}: what the machine allows and what is reached"
            with canvas(title, heading) as (figure, axes):
                _draw(axes, points, ceilings[where(points[0].record)])
                paths += save(figure, request.folder, name, request.formats)
    return paths


def _draw(axes: Any, points: Sequence[RooflinePoint], roof: Ceilings) -> None:
    axes.set_xlabel("FLOPs per byte that operators read and write")
    axes.set_ylabel("GFLOP/s")
    intensities = [point.intensity for point in points] + [roof.ridge]
    x = np.geomspace(min(intensities) / ROOM, max(intensities) * ROOM, 200)
    axes.plot(x, np.minimum(roof.flops_per_s, x * roof.bytes_per_s) / 1e9, color="#333333")
    labels = []
    for point in points:
        cell = point.record["cell"]
        style = look(cell["model"], cell["family"])
        axes.plot(point.intensity, point.rate / 1e9, color=style.color, marker=style.marker,
                  markersize=15)  # fmt: skip
        text = f"{cell['model']} {100 * point.share:.2g} %"
        labels.append((point.intensity, point.rate / 1e9, text, style.color))
    for which in ("x", "y"):
        logarithmic(axes, which)
    roofs = f"{roof.flops_per_s / 1e9:.0f} GFLOP/s, {roof.bytes_per_s / 1e9:.0f} GB/s"
    axes.annotate(
        roofs, (roof.ridge, roof.flops_per_s / 1e9), xytext=(0, 10), textcoords="offset points",
        ha="center", color="#333333",
    )  # fmt: skip
    place_labels(axes, labels)
