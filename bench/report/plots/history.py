"""A metric over commits: every value with its interval, levels, changes and the pinned release."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.report.compare.cells import AXES
from bench.report.compare.floors import APART, NOISE, floors_in
from bench.report.formats import percent
from bench.report.history.judge import Judged, Pin, judge_all
from bench.report.history.series import TIMED, Series, build
from bench.report.history.timeline import Commit, Timeline, first_parents
from bench.report.labels import label
from bench.report.plots.figure import Request
from bench.report.plots.palette import Look, Named, Palette
from bench.report.plots.style import LEAST, panels, save
from bench.report.select import Variant, variant_of
from bench.store import Record

NEEDS = "a second commit of the same cell (python -m bench, after a change)"
MOST = 4  # panels of a figure: with more, a slide is no longer read
WIDE, NARROW = 90, 44  # letters of a panel's title that stand on a line
TICKS = 4  # commits named below a panel
# Colours belong to families: a verdict is a word with an arrow, black where it is told.
TOLD, PLAIN, FAINT = "#000000", "#555555", "#767676"
Places = dict[str, tuple[int, Commit]]  # number along the axis, by the key of the commit
Page = Sequence[Sequence[Judged]]
Mark = tuple[float, str, str]  # place along the axis, words, colour


@dataclass(frozen=True)
class Slide:
    """What the panels of one figure share: all cells of its task, scenario and metric."""

    cells: Page
    pin: Pin | None
    palette: Palette

    @cached_property
    def names(self) -> dict[str, str]:
        """What tells each cell from the others."""
        rows, found = [_row(ones) for ones in self.cells], {}
        for ones, row in zip(self.cells, rows, strict=True):
            own = [axis for axis in _axes(ones) if axis not in self.shared]
            found[ones[-1].series.cell] = " ".join([label(row, rows), *own])
        return found

    @cached_property
    def looks(self) -> dict[str, Look]:
        """The look of each cell by its name."""
        cells = [ones[-1].series.record["cell"] for ones in self.cells]
        rows = zip(self.names.values(), cells, strict=True)
        return self.palette.looks([Named(name, c["family"], c["model"]) for name, c in rows])

    @cached_property
    def shared(self) -> list[str]:
        """The axes that are the same for all cells."""
        return [a for a in _axes(self.cells[0]) if all(a in _axes(ones) for ones in self.cells)]

    def title(self, ones: Sequence[Judged]) -> str:
        """The cell's name, and where it stands against the pinned release."""
        name = self.names[ones[-1].series.cell]
        if self.pin and (pinned := ones[-1].pinned):
            judgement = pinned.judgement
            name += f": {percent(judgement.ratio - 1)} since {self.pin.label}, {judgement.verdict}"
        return name

    def look(self, series: Series) -> Look:
        """That of the series' cell."""
        return self.looks[self.names[series.cell]]

    @property
    def caption(self) -> str:
        """Machines, axes that all cells share, and what is drawn."""
        machines = dict.fromkeys(_machine(ones[-1].series.record) for ones in self.cells)
        drawn = "Bars: 95 % intervals. Grey steps: levels. Dashed: changes, by E-divisive and a "
        drawn += "t-test, grey where they did not last or were released."
        if self.pin:
            drawn += f" Dotted: level of the pinned {self.pin.label}."
        return " · ".join([*machines, *self.shared]) + "\n" + drawn


def draw(request: Request) -> list[Path]:
    """The figures of `history` without a pinned release, in the order of the repository here."""
    line = first_parents(Path(), given=False)
    timeline = Timeline(request.records, line, "'.'")
    floors = floors_in(request.results / NOISE, APART, given=False)  # those of the command
    judged = judge_all(build(request.records, timeline), floors=floors)
    palette = Palette(request.records)
    return draw_series(judged, None, request.folder, request.formats, palette)


def draw_series(
    judged: Sequence[Judged], pin: Pin | None, folder: Path, formats: Sequence[str],
    palette: Palette | None = None,
) -> list[Path]:  # fmt: skip
    """Figures for each task, scenario and metric, with a panel a cell."""
    palette = palette or Palette([one.series.record for one in judged])
    groups: dict[tuple[str, str, str], dict[str, list[Judged]]] = {}
    for one in judged:
        cell, series = one.series.record["cell"], one.series
        key = (cell["task"], cell["scenario"], series.metric)
        groups.setdefault(key, {}).setdefault(series.cell, []).append(one)
    paths: list[Path] = []
    for (task, scenario, metric), cells in groups.items():
        told = [ones for ones in cells.values() if _worth_drawing(ones)]
        stem = re.sub(r"\W+", "-", f"history-{task}-{scenario}-{metric}".lower())
        title = f"{task}, {scenario}: {_words(metric)} over commits"
        slide = Slide(told, pin, palette)
        for number, start in enumerate(range(0, len(told), MOST)):
            page = told[start : start + MOST]
            with panels(title, slide.caption, len(page)) as (figure, axes):
                wide = WIDE if len(page) == 1 else NARROW
                marks = [_panel(a, ones, slide, wide) for a, ones in zip(axes, page, strict=True)]
                figure.draw_without_rendering()  # widths are known once everything has its place
                for each, found in zip(axes, marks, strict=True):
                    _label(each, found)
                name = stem + (f"-{number + 1}" if number else "")
                paths += save(figure, folder, name, formats)
    return paths


def _worth_drawing(ones: Sequence[Judged]) -> bool:
    """Two commits or more, and something that varies."""
    return sum(len(one.series.points) for one in ones) > 1 and any(o.series.varies for o in ones)


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _machine(record: Record) -> str:
    environment = record.get("environment") or {}
    name = environment.get("gpu") or environment.get("cpu") or "unknown machine"
    return f"{name} [{str(environment.get('machine_key'))[:12]}]"


def _row(ones: Sequence[Judged]) -> Variant:
    """The row of the cell, without the mode of compiling, which is one of its axes."""
    return replace(variant_of(ones[-1].series.record), compile="")


def _axes(ones: Sequence[Judged]) -> list[str]:
    """Device, dtype, threads and the like, in words."""
    cell: dict[str, Any] = dict(ones[-1].series.record["cell"])
    return [f"{axis}={cell[axis]}" for axis in AXES if cell.get(axis)]


def _panel(axes: Any, ones: Sequence[Judged], slide: Slide, wide: int) -> list[Mark]:
    """One cell: its older series faint, the newest in the colour of the family; what to mark."""
    newest, pinned = ones[-1].series, ones[-1].pinned
    places = _places(ones)
    title = "\n".join(textwrap.wrap(slide.title(ones), wide))
    axes.set_title(title, color=slide.look(newest).ink)
    axes.set_ylabel("ms" if newest.kind == TIMED else _words(newest.metric))
    for one in ones:
        _line(axes, one, places, slide.look(one.series))
    if slide.pin and pinned:
        axes.axhline(pinned.base * _scale(newest), color=TOLD, linestyle=":", linewidth=2)
    axes.set_xlim(-0.8, len(places) - 0.2)
    _ticks(axes, places)
    marks = [mark for one in ones for mark in _marks(one, places, slide.pin)]
    marks += [_break(axes, a.series, b.series, places) for a, b in pairwise(ones)]
    return sorted(marks)


def _places(ones: Sequence[Judged]) -> Places:
    """Number of every commit of the cell along the axis, by its key."""
    commits = sorted({p.commit.key: p.commit for one in ones for p in one.series.points}.values())
    return {commit.key: (number, commit) for number, commit in enumerate(commits)}


def _scale(series: Series) -> float:
    return 1e3 if series.kind == TIMED else 1.0


def _line(axes: Any, one: Judged, places: Places, look: Look) -> None:
    series, scale = one.series, _scale(one.series)
    style = look.point if series.since is None else replace(look, color=FAINT).point
    x = [places[point.commit.key][0] for point in series.points]
    y = [point.value * scale for point in series.points]
    below = [(p.value - p.low) * scale if p.low is not None else 0.0 for p in series.points]
    above = [(p.high - p.value) * scale if p.high is not None else 0.0 for p in series.points]
    axes.errorbar(
        x, y, yerr=[below, above], **style, elinewidth=2, linewidth=1, alpha=0.9,
    )  # fmt: skip
    bounds = [0, *(change.place for change in one.changes), len(x)]
    means = [c.before for c in one.changes[:1]] + [c.after for c in one.changes]
    for a, b, mean in zip(bounds, bounds[1:], means, strict=False):
        axes.plot([x[a] - 0.4, x[b - 1] + 0.4], [mean * scale] * 2, color=PLAIN, linewidth=2.5,
                  alpha=0.6, solid_capstyle="butt")  # fmt: skip


def _marks(one: Judged, places: Places, pin: Pin | None) -> list[Mark]:
    """Size and commit of each change; grey where it did not last or was released."""
    series, found = one.series, []
    for change in one.changes:
        commit = series.points[change.place].commit
        told = change.lasting and series.since is None and not (pin and pin.accepts(commit))
        arrow = "▲" if change.size > 0 else "▼"
        text = f"{arrow} {percent(change.size)} {change.verdict}\n{commit.label}"
        found.append((places[commit.key][0] - 0.5, text, TOLD if told else FAINT))
    return found


def _break(axes: Any, before: Series, after: Series, places: Places) -> Mark:
    """Where one series ends and the next, which cannot be compared with it, begins."""
    at = (places[before.last.commit.key][0] + places[after.points[0].commit.key][0]) / 2
    axes.axvspan(at - 0.2, at + 0.2, color="#DDDDDD", zorder=0)
    what = ", ".join(part.partition(":")[0] for part in (before.since or "").split("; "))
    return at, f"not comparable:\n{what}", PLAIN


def _label(axes: Any, marks: Sequence[Mark]) -> None:
    """A vertical line at each mark and its words above the data, in rows where they collide."""
    room = axes.bbox.width / axes.figure.dpi * 72 / (axes.get_xlim()[1] - axes.get_xlim()[0])
    ends: list[float] = []  # right end of the words in each row
    rows = []
    for at, text, _ in marks:
        width = 0.7 * LEAST * max(map(len, text.split("\n"))) / room
        left = min(at, axes.get_xlim()[1] - width)
        row = next((number for number, end in enumerate(ends) if end <= left), len(ends))
        ends[row : row + 1] = [left + width]
        rows.append((row, left))
    height = 2.4 * LEAST / (axes.bbox.height / axes.figure.dpi * 72)
    low, high = axes.get_ylim()
    axes.set_ylim(low, low + (high - low) / max(0.3, 1 - height * len(ends)))
    for (at, text, color), (row, left) in zip(marks, rows, strict=True):
        below = row + (left < at)  # where the words had to move, their line ends below them
        axes.axvline(at, ymax=1 - height * below, color=color, linestyle="--", linewidth=1.8)
        axes.annotate(
            text, (left, 1 - height * row), xycoords=("data", "axes fraction"), xytext=(4, 0),
            textcoords="offset points", ha="left", va="top", color=color, fontsize=LEAST,
            fontweight="bold", linespacing=0.95,
        )  # fmt: skip


def _ticks(axes: Any, places: Places) -> None:
    step = max(1, round((len(places) - 1) / (TICKS - 1)))
    named = [(number, commit.label) for number, commit in places.values()][::-step]
    axes.set_xticks([number for number, _ in named], [label for _, label in named])
    axes.grid(axis="x", visible=False)
