"""A metric over commits: every value with its interval, levels, changes and the pinned release."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report.history.changes import Change
from bench.report.history.judge import Judged, Pin, judge_all
from bench.report.history.series import TIMED, Series, build
from bench.report.history.timeline import Commit, Timeline, first_parents
from bench.report.plots.figure import Request
from bench.report.plots.style import look, panels, save
from bench.report.select import overrides

NEEDS = "a second commit of the same cell (python -m bench, after a change)"
MOST = 6  # panels of a figure: with more, a slide is no longer read
TICKS = 5  # commits named below a panel
COLORS = {"slower": "#B2182B", "worse": "#B2182B", "faster": "#1B7837", "better": "#1B7837"}
PLAIN, FAINT = "#555555", "#999999"


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
                for each, ones in zip(axes, page, strict=True):
                    _panel(each, ones, pin, page)
                paths += save(figure, folder, name, formats)
    return paths


def _worth_drawing(ones: Sequence[Judged]) -> bool:
    """Two commits or more, and something that varies."""
    return sum(len(one.series.points) for one in ones) > 1 and any(o.series.varies for o in ones)


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _caption(page: Sequence[Sequence[Judged]], pin: Pin | None) -> str:
    record = page[0][-1].series.record
    environment = record.get("environment") or {}
    axes = {ones[-1].series.cell.partition(" (")[2].rstrip(")") for ones in page}
    first = [str(environment.get("gpu") or environment.get("cpu") or "unknown machine")]
    first += [f"machine {str(environment.get('machine_key'))[:12]}", *sorted(axes)[:1]]
    drawn = "Bars: 95 % intervals. Grey steps: levels. Dashed: changes, by E-divisive and a t-test."
    if pin:
        drawn += f" Dotted: level of the pinned {pin.label}."
    return " · ".join(first) + "\n" + drawn


def _panel(axes: Any, ones: Sequence[Judged], pin: Pin | None, page: Any) -> None:
    """One cell: its older series faint, the newest in the colour of the family."""
    newest = ones[-1].series
    places = _places(ones)
    for one in ones:
        _line(axes, one, places)
    _ticks(axes, places)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.22 * (high - low))  # room for the names of changes
    for one in ones:
        for change in one.changes:
            _mark(axes, one.series, change, places, pin)
    for one, after in zip(ones, ones[1:], strict=False):
        _break(axes, one.series, after.series, places)
    pinned = ones[-1].pinned
    if pinned is not None and pin is not None:
        level = pinned.base * _scale(newest)
        axes.axhline(level, color="#000000", linestyle=":", linewidth=1.5)
        axes.annotate(
            f"pinned {pinned.judgement.ratio - 1:+.1%}", (1, level),
            xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
            va="center", fontsize=11, annotation_clip=False,
        )  # fmt: skip
    cell = newest.record["cell"]
    axes.set_title(" ".join([cell["model"], *_changed(newest, page)]),
                   color=look(cell["model"], cell["family"]).color)  # fmt: skip
    axes.set_ylabel("ms" if newest.kind == TIMED else _words(newest.metric))
    axes.margins(x=0.03)


def _changed(series: Series, page: Sequence[Sequence[Judged]]) -> list[str]:
    """What tells the cell from others of the same model on the page."""
    cell = series.record["cell"]
    same = [ones[-1].series.record["cell"] for ones in page]
    rivals = [one for one in same if one["model"] == cell["model"]]
    size = [str(cell.get("size"))] if len(rivals) > 1 else []
    return [*size, *overrides(series.record)]


def _places(ones: Sequence[Judged]) -> dict[str, tuple[int, Commit]]:
    """Number of every commit of the cell along the axis, by its key."""
    commits = sorted({p.commit.key: p.commit for one in ones for p in one.series.points}.values())
    return {commit.key: (number, commit) for number, commit in enumerate(commits)}


def _scale(series: Series) -> float:
    return 1e3 if series.kind == TIMED else 1.0


def _line(axes: Any, one: Judged, places: dict[str, tuple[int, Commit]]) -> None:
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


def _mark(
    axes: Any, series: Series, change: Change, places: dict[str, tuple[int, Commit]],
    pin: Pin | None,
) -> None:  # fmt: skip
    """A vertical line before the first commit of a new level, with its name and size."""
    commit = series.points[change.place].commit
    at = places[commit.key][0] - 0.5
    judged = change.lasting and series.since is None and not (pin and pin.accepts(commit))
    color = COLORS.get(change.verdict, PLAIN) if judged else FAINT
    axes.axvline(at, color=color, linestyle="--", linewidth=1.8)
    late = at > 0.6 * (len(places) - 1)
    axes.annotate(
        f"{change.size:+.1%}\n{commit.label}", (at, 1), xycoords=("data", "axes fraction"),
        xytext=(-4 if late else 4, -2), textcoords="offset points", ha="right" if late else "left",
        va="top", color=color, fontsize=11, fontweight="bold", linespacing=0.95,
    )  # fmt: skip


def _break(axes: Any, before: Series, after: Series, places: dict[str, tuple[int, Commit]]) -> None:
    """Where one series ends and the next, which cannot be compared with it, begins."""
    at = (places[before.last.commit.key][0] + places[after.points[0].commit.key][0]) / 2
    axes.axvspan(at - 0.15, at + 0.15, color="#DDDDDD", zorder=0)
    axes.annotate(
        f"not comparable: {(before.since or '').partition(':')[0]}", (at, 0),
        xycoords=("data", "axes fraction"), xytext=(-3, 4), textcoords="offset points",
        rotation=90, ha="right", va="bottom", fontsize=9, color=PLAIN,
    )  # fmt: skip


def _ticks(axes: Any, places: dict[str, tuple[int, Commit]]) -> None:
    step = max(1, round((len(places) - 1) / (TICKS - 1)))
    named = [(number, commit.label) for number, commit in places.values()][::step]
    axes.set_xticks([number for number, _ in named], [label for _, label in named])
    axes.tick_params(axis="x", labelsize=10)
    axes.grid(axis="x", visible=False)
