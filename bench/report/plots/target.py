"""Seconds to the target by row: a dot a seed, a bar to their median, "not reached" in words."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.report.formats import significant
from bench.report.heading import context
from bench.report.heads import metric_of
from bench.report.noise import provisional
from bench.report.plots.figure import Request
from bench.report.plots.palette import Look, Named, Palette
from bench.report.plots.style import canvas, save
from bench.report.select import select
from bench.report.targets import NOT_REACHED, SCHEDULE, Reach, reaches, target_of

NEEDS = "scores on validation on the way, and a target to hold them against (--target)"
MEANING = "Bars: median over seeds. Dots: each seed, at the first check that met the target."
HOLLOW = {"facecolor": "white", "hatch": "//", "linewidth": 2}  # trained so long in vain
ROOM = 1.3  # of the longest bar, for words beside it
SIZE = 18


def draw(request: Request) -> list[Path]:
    """A figure for each block of records with checks and a target."""
    paths: list[Path] = []
    palette = Palette(request.records)
    seen: dict[str, int] = defaultdict(int)
    for selection in select([r for r in request.records if r["cell"]["scenario"] == "quality"]):
        task = selection.key.task
        target = target_of(selection.records, task, request.targets)
        found = [] if target is None else reaches(selection, target)
        if target is None or not found:
            continue
        seen[task] += 1
        name = f"target-{task}" + (f"-{seen[task]}" if seen[task] > 1 else "")
        looks = palette.looks([Named(r.name, r.family, r.model) for r in found])
        few = min(len(reach.taken) for reach in found)
        seeds = f"{provisional(few)}.".capitalize().lstrip(".")
        words = " ".join(filter(None, (MEANING, SCHEDULE, seeds)))
        title = f"{task}: time to {metric_of(selection)[0]} {target:g}"
        with canvas(title, f"{context(selection)}\n{words}") as (figure, axes):
            _draw(axes, found, looks)
            paths += save(figure, request.folder, name, request.formats)
    return paths


def _draw(axes: Any, found: list[Reach], looks: dict[str, Look]) -> None:
    """The fastest on top; where half of the seeds did not reach it, what was trained is hollow."""
    axes.set_xlabel("seconds of training to the target   better ←")
    longest = max(one.trained if not one.reached else one.seconds
                  for reach in found for one in reach.taken)  # fmt: skip
    for place, reach in enumerate(found):
        look, times = looks[reach.name], [one.seconds for one in reach.taken if one.reached]
        n = len(reach.taken)
        if math.isfinite(reach.seconds):
            length, words = reach.seconds, f"{significant(reach.seconds)} s"
            axes.barh(place, length, color=look.color, alpha=0.45)
        else:
            length, words = max(one.trained for one in reach.taken), NOT_REACHED
            axes.barh(place, length, edgecolor=look.color, **HOLLOW)
        if 0 < reach.reached < n:
            words += f" ({reach.reached} of {n} seeds reached it)"
        axes.plot(times, [place] * len(times), linestyle="", **look.point)
        axes.text(
            max([length, *times]) + 0.02 * longest, place, words, va="center", color=look.ink,
            fontsize=SIZE,
        )  # fmt: skip
    axes.set_yticks(range(len(found)), [reach.name for reach in found])
    for tick, reach in zip(axes.get_yticklabels(), found, strict=True):
        tick.set_color(looks[reach.name].ink)
    axes.set_xlim(0, ROOM * longest)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
