"""A metric over commits: every value with its interval, levels, changes and the pinned release."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.report.formats import percent
from bench.report.history.judge import Judged, Pin, judge_all
from bench.report.history.series import TIMED, Series, build
from bench.report.history.timeline import Commit, Timeline, first_parents
from bench.report.plots.figure import Request
from bench.report.plots.style import look, panels, save
from bench.report.select import overrides

NEEDS = "a second commit of the same cell (python -m bench, after a change)"
MOST = 6  # panels of a figure: with more, a slide is no longer read
TICKS = 4  # commits named below a panel
COLORS = {"slower": "#B2182B", "worse": "#B2182B", "faster": "#1B7837", "better": "#1B7837"}
PLAIN, FAINT = "#555555", "#999999"
SMALL = 11  # points of the words at a change
Places = dict[str, tuple[int, Commit]]  # number along the axis, by the key of the commit
Page = Sequence[Sequence[Judged]]
Mark = tuple[float, str, str]  # place along the axis, words, colour


def draw(request: Request) -> list[Path]:
    """The figures of `history` without a pinned release, in the order of the repository here."""
    line = first_parents(Path(), given=False)
    timeline = Timeline(request.records, line, "'.'")
    judged = judge_all(build(request.records, timeline))
    return draw_series(judged, None, request.folder, request.formats)


def draw_series(
    judged: Sequence[Judged], pin: Pin | None, folder: Path, formats: Sequence[str]
) -> list[Path]:
    """A figure for each task, scenario and metric, with a panel a cell."""
    groups: dict[tuple[str, str, str], dict[str, list[Judged]]] = {}
    for one in judged:
        cell, series = one.series.record["cell"], one.series
        key = (cell["task"], cell["scenario"], series.metric)
        groups.setdefault(key, {}).setdefault(series.cell, []).append(one)
    paths: list[Path] = []
    for (task, scenario, metric), cells in groups.items():
        told = [ones for ones in cells.values() if _worth_drawing(ones)]
        for number, start in enumerate(range(0, len(told), MOST)):
            name = re.sub(r"\W+", "-", f"history-{task}-{scenario}-{metric}".lower())
            name += f"-{number + 1}" if number else ""
            title = f"{task}, {scenario}: {_words(metric)} over commits"
            page = told[start : start + MOST]
            with panels(title, _caption(page, pin), len(page)) as (figure, axes):
                marks = [_panel(a, ones, pin, page) for a, ones in zip(axes, page, strict=True)]
                figure.draw_without_rendering()  # widths are known once everything has its place
                for each, found in zip(axes, marks, strict=True):
                    _label(each, found)
                paths += save(figure, folder, name, formats)
    return paths


def _worth_drawing(ones: Sequence[Judged]) -> bool:
    """Two commits or more, and something that varies."""
    return sum(len(one.series.points) for one in ones) > 1 and any(o.series.varies for o in ones)


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _caption(page: Page, pin: Pin | None) -> str:
    record = page[0][-1].series.record
    environment = record.get("environment") or {}
    axes = {ones[-1].series.cell.partition(" (")[2].rstrip(")") for ones in page}
    first = [str(environment.get("gpu") or environment.get("cpu") or "unknown machine")]
    first += [f"machine {str(environment.get('machine_key'))[:12]}", *sorted(axes)[:1]]
    drawn = "Bars: 95 % intervals. Grey steps: levels. Dashed: changes, by E-divisive and a t-test."
    if pin:
        drawn += f" Dotted: level of the pinned {pin.label}."
    return " · ".join(first) + "\n" + drawn


def _panel(axes: Any, ones: Sequence[Judged], pin: Pin | None, page: Page) -> list[Mark]:
    """One cell: its older series faint, the newest in the colour of the family; what to mark."""
    newest, pinned = ones[-1].series, ones[-1].pinned
    cell, places = newest.record["cell"], _places(ones)
    title = " ".join([cell["model"], *_changed(newest, page)])
    axes.set_title(title, color=look(cell["model"], cell["family"]).color)
    axes.set_ylabel("ms" if newest.kind == TIMED else _words(newest.metric))
    for one in ones:
        _line(axes, one, places)
    if pin and pinned:
        axes.axhline(pinned.base * _scale(newest), color="#000000", linestyle=":", linewidth=1.5)
        axes.set_title(f"{percent(pinned.judgement.ratio - 1)} since {pin.label}", loc="right",
                       color=COLORS.get(pinned.judgement.verdict, PLAIN))  # fmt: skip
    axes.set_xlim(-0.8, len(places) - 0.2)
    _ticks(axes, places)
    marks = [mark for one in ones for mark in _marks(one, places, pin)]
    marks += [_break(axes, a.series, b.series, places) for a, b in pairwise(ones)]
    return sorted(marks)


def _changed(series: Series, page: Page) -> list[str]:
    """What tells the cell from others of the same model on the page."""
    cell = series.record["cell"]
    same = [ones[-1].series.record["cell"] for ones in page]
    rivals = [one for one in same if one["model"] == cell["model"]]
    size = [str(cell.get("size"))] if len(rivals) > 1 else []
    return [*size, *overrides(series.record)]


def _places(ones: Sequence[Judged]) -> Places:
    """Number of every commit of the cell along the axis, by its key."""
    commits = sorted({p.commit.key: p.commit for one in ones for p in one.series.points}.values())
    return {commit.key: (number, commit) for number, commit in enumerate(commits)}


def _scale(series: Series) -> float:
    return 1e3 if series.kind == TIMED else 1.0


def _line(axes: Any, one: Judged, places: Places) -> None:
    series, cell = one.series, one.series.record["cell"]
    style = look(cell["model"], cell["family"])
    scale, color = _scale(series), style.color if series.since is None else FAINT
    x = [places[point.commit.key][0] for point in series.points]
    y = [point.value * scale for point in series.points]
    below = [(p.value - p.low) * scale if p.low is not None else 0.0 for p in series.points]
    above = [(p.high - p.value) * scale if p.high is not None else 0.0 for p in series.points]
    axes.errorbar(
        x, y, yerr=[below, above], color=color, marker=style.marker, elinewidth=1.2,
        linewidth=0.8, alpha=0.9,
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
        color = COLORS.get(change.verdict, PLAIN) if told else FAINT
        found.append(
            (places[commit.key][0] - 0.5, f"{percent(change.size)}\n{commit.label}", color)
        )
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
        width = 0.7 * SMALL * max(map(len, text.split("\n"))) / room
        left = min(at, axes.get_xlim()[1] - width)
        row = next((number for number, end in enumerate(ends) if end <= left), len(ends))
        ends[row : row + 1] = [left + width]
        rows.append((row, left))
    height = 2.4 * SMALL / (axes.bbox.height / axes.figure.dpi * 72)
    low, high = axes.get_ylim()
    axes.set_ylim(low, low + (high - low) / max(0.3, 1 - height * len(ends)))
    for (at, text, color), (row, left) in zip(marks, rows, strict=True):
        axes.axvline(at, ymax=1 - height * row, color=color, linestyle="--", linewidth=1.8)
        axes.annotate(
            text, (left, 1 - height * row), xycoords=("data", "axes fraction"), xytext=(4, 0),
            textcoords="offset points", ha="left", va="top", color=color, fontsize=SMALL,
            fontweight="bold", linespacing=0.95,
        )  # fmt: skip


def _ticks(axes: Any, places: Places) -> None:
    step = max(1, round((len(places) - 1) / (TICKS - 1)))
    named = [(number, commit.label) for number, commit in places.values()][::-step]
    axes.set_xticks([number for number, _ in named], [label for _, label in named])
    axes.tick_params(axis="x", labelsize=10)
    axes.grid(axis="x", visible=False)
