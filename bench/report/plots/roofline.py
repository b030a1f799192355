"""Every cell under the roof of the machine that it ran on."""

from pathlib import Path

import numpy as np

from bench.report.cell_rows import by_heading
from bench.report.plots.figure import Request
from bench.report.plots.style import canvas, look, place_labels, save
from bench.report.roofline import RooflinePoint, find_ceilings, place, where

NEEDS = "its cost, beside the machine's ceilings (python -m bench scenario=ceilings)"
SCENARIOS = ("train", "prefill", "decode", "sample")


def draw(request: Request) -> list[Path]:
    """A figure for each scenario of each machine and task."""
    ceilings = find_ceilings(request.records)
    paths: list[Path] = []
    groups: dict[tuple[str, str, str], list[RooflinePoint]] = {}
    for heading, records in by_heading(request.records, SCENARIOS).items():
        for record in records:
            if (point := place(record, ceilings)) is not None:
                cell = record["cell"]
                key = (heading, cell["task"], cell["scenario"])
                groups.setdefault(key, []).append(point)
    headings = list(dict.fromkeys(heading for heading, _, _ in groups))
    for (heading, task, scenario), points in groups.items():
        roof = ceilings[where(points[0].record)]
        number = headings.index(heading)
        name = f"roofline-{task}-{scenario}" + (f"-{number + 1}" if number else "")
        with canvas(
            f"{task}, {scenario}: what the machine allows and what is reached", heading
        ) as (
            figure,
            axes,
        ):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel("FLOPs per byte that operators read and write")
            axes.set_ylabel("GFLOP/s")
            low = min([point.intensity for point in points] + [roof.ridge]) / 3
            high = max([point.intensity for point in points] + [roof.ridge]) * 3
            x = np.geomspace(low, high, 200)
            y = np.minimum(roof.flops_per_s, x * roof.bytes_per_s) / 1e9
            axes.plot(x, y, color="#333333")
            axes.annotate(
                f"{roof.flops_per_s / 1e9:.0f} GFLOP/s, {roof.bytes_per_s / 1e9:.0f} GB/s",
                (roof.ridge, roof.flops_per_s / 1e9), xytext=(0, 10),
                textcoords="offset points", ha="center", color="#333333",
            )  # fmt: skip
            labels = []
            for point in points:
                cell = point.record["cell"]
                style = look(cell["model"], cell["family"])
                axes.plot(
                    point.intensity, point.rate / 1e9, color=style.color, marker=style.marker,
                    markersize=15,
                )  # fmt: skip
                text = f"{cell['model']} {point.share:.0%}"
                labels.append((point.intensity, point.rate / 1e9, text, style.color))
            place_labels(axes, labels)
            paths += save(figure, request.folder, name, request.formats)
    return paths
