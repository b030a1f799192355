"""A history as two sheets: where every metric stands, and where it changed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.report.compare.metrics import SEPARATOR
from bench.report.compare.sheet import STYLES, value_entry
from bench.report.compare.statistics import ALPHA
from bench.report.compare.verdict import EXIT_CODES, gravity
from bench.report.formats import MISSING, percent
from bench.report.history.changes import Change, share_of_p
from bench.report.history.divisive import LEAST
from bench.report.history.findings import of_series
from bench.report.history.judge import Judged, Pin
from bench.report.history.series import EXACT
from bench.report.history.steps import LEVEL_OF, Step
from bench.report.sheet import Entry, Sheet
from bench.store import plain

LEVELS = "▁▂▃▄▅▆▇█"
WIDTH = 12  # commits that the line of blocks shows
NAMED = 5  # cells that a note names
HEADS = ["verdict", "cell", "metric", "commits", "trend", "last", "since previous", "since pinned"]
CHANGE_HEADS = ["verdict", "cell", "metric", "commit", "day", "before", "after", "size", "p",
                "lasts", "subject"]  # fmt: skip


def sheets(judged: Sequence[Judged], pin: Pin | None, notes: Sequence[str]) -> list[Sheet]:
    """Those that are not empty; `notes` stand below the first."""
    names, common = _names(judged)
    newest = [one for one in judged if one.series.since is None]
    shown = [one for one in newest if one.series.varies]
    rows = sorted(((_gravest(one, pin), one) for one in shown), key=_order)
    heads = HEADS if pin else HEADS[:-1]
    said = [*notes, *_notes(judged, pin, names, common)]
    found = [Sheet("History", heads, [_row(word, one, names, pin) for word, one in rows], said)]
    changed = [
        _change(one, change, names, pin) for one in judged for change in reversed(one.changes)
    ]
    if changed:
        found.append(Sheet("Change points", CHANGE_HEADS, changed))
    return found


def _order(row: tuple[str | None, Judged]) -> int:
    return gravity(row[0]) if row[0] else len(EXIT_CODES)


def _gravest(one: Judged, pin: Pin | None) -> str | None:
    """The gravest verdict; None where nothing was held against anything."""
    told = [finding.verdict for finding in of_series(one, pin)]
    return min(told, key=gravity, default=None if one.stale else "new")


def _row(word: str | None, one: Judged, names: Mapping[str, str], pin: Pin | None) -> list[Entry]:
    series = one.series
    values = [point.value for point in series.points]
    row = [
        Entry(word, style=STYLES[word] if word else ""), Entry(names[series.cell]),
        Entry(series.metric), Entry(len(values)), Entry(trend(values)),
        value_entry(series.last.value, series.unit), _step(one.previous, interval=False),
    ]  # fmt: skip
    if not pin:
        return row
    return [*row, Entry("not comparable") if one.obstacle else _step(one.pinned, interval=True)]


def _step(step: Step | None, *, interval: bool) -> Entry:
    if step is None or math.isnan(step.judgement.ratio):
        return Entry(None)
    told = step.judgement
    text = percent(told.ratio - 1)
    if interval and not math.isnan(told.low):
        text += f" [{percent(told.low - 1)}, {percent(told.high - 1)}]"
    return Entry(told.ratio - 1, text, STYLES[told.verdict])


def trend(values: Sequence[float]) -> str:
    """The last values as blocks between their least and their largest."""
    shown = values[-WIDTH:]
    low, high = min(shown), max(shown)
    if low == high:
        return LEVELS[3] * len(shown)
    scale = (len(LEVELS) - 1) / (high - low)
    return "".join(LEVELS[round((value - low) * scale)] for value in shown)


def _change(one: Judged, changed: Change, names: Mapping[str, str], pin: Pin | None) -> list[Entry]:
    series = one.series
    commit = series.points[changed.place].commit
    if series.since is not None:
        lasts = "older series"
    elif pin and pin.accepts(commit):
        lasts = "released"
    else:
        lasts = "yes" if changed.lasting else "undone"
    style = STYLES[changed.verdict] if lasts == "yes" else "dim"
    size = percent(changed.size) if math.isfinite(changed.size) else MISSING
    return [
        Entry(changed.verdict, style=style), Entry(names[series.cell]),
        Entry(series.metric), Entry(commit.label), Entry(commit.day),
        value_entry(changed.before, series.unit), value_entry(changed.after, series.unit),
        Entry(changed.size, size),
        Entry("exact") if changed.p is None else Entry(changed.p, f"{changed.p:.1g}"),
        Entry(lasts), Entry(commit.subject or None),
    ]  # fmt: skip


def _names(judged: Sequence[Judged]) -> tuple[dict[str, str], list[str]]:
    """A short name for every cell, and the words that it leaves out, for all cells share them."""
    parts: dict[str, tuple[list[str], list[str]]] = {}
    for one in judged:
        text, _, ending = one.series.cell.partition(" (")
        parts[one.series.cell] = (text.split(SEPARATOR), ending.removesuffix(")").split())
    alone = len(parts) == 1  # its name stays, or nothing would be left of it
    words, axes = next(iter(parts.values()))
    shared = [
        word for word in words if not alone and all(word in part for part, _ in parts.values())
    ]
    given = [axis for axis in axes if all(axis in part for _, part in parts.values())]
    names = {}
    for cell, (own, particular) in parts.items():
        rest = " ".join(axis for axis in particular if axis not in given)
        short = SEPARATOR.join(word for word in own if word not in shared)
        names[cell] = short + (f" ({rest})" if rest else "")
    return names, [*shared, *([" ".join(given)] if given else [])]


def _notes(
    judged: Sequence[Judged], pin: Pin | None, names: Mapping[str, str], common: Sequence[str]
) -> list[str]:
    found = [f"All cells: {SEPARATOR.join(common)}."] if common else []
    all_series = [one.series for one in judged]
    newest = [series for series in all_series if series.since is None]
    quiet = sum(not series.varies for series in newest)
    if quiet:
        found.append(f"Not shown: {quiet} exact figures that never changed.")
    short = sum(series.kind != EXACT and len(series.points) < 2 * LEAST for series in newest)
    if short:
        found.append(
            f"{short} series are shorter than {2 * LEAST} commits: no change is looked for."
        )
    if pin:
        followed = [one for one in judged if one.series.since is None and one.series.varies]
        absent = sum(one.pinned is None and not one.obstacle for one in followed)
        found.append(
            f"Pinned: {pin.label}; the level of up to {LEVEL_OF} commits there and at the end, "
            f"error {ALPHA:.0%} over all series."
            + (f" {absent} series have no record of it." if absent else "")
        )
    stale = {
        f"{names[one.series.cell]} (last at {one.series.last.commit.label})": None
        for one in judged
        if one.stale and one.series.since is None
    }
    if stale:
        named = ", ".join([*stale][:NAMED]) + (", …" if len(stale) > NAMED else "")
        found.append(
            f"Not measured at the newest commit, so not held against the one before: {named}."
        )
    found.append(f"Change points: E-divisive with Student's test, p {share_of_p(all_series):.1g}.")
    breaks = {
        f"{names[one.series.cell]} up to {one.series.last.commit.label} is a series "
        f"of its own ({one.series.since})": None
        for one in judged
        if one.series.since is not None
    }
    return [*found, *breaks]


def document(judged: Sequence[Judged]) -> dict[str, Any]:
    """Every series with its points and changes, for the JSON document."""
    return {"series": [plain(_series(one), "history") for one in judged]}


def _series(one: Judged) -> Mapping[str, Any]:
    series = one.series
    return {
        "cell": series.cell, "metric": series.metric, "unit": series.unit,
        "better": series.better or None, "since": series.since,
        "points": [
            {"commit": p.commit.key, "label": p.commit.label, "day": p.commit.day,
             "value": p.value, "low": p.low, "high": p.high, "n": p.n}
            for p in series.points
        ],
        "changes": [
            {"commit": series.points[c.place].commit.key, "before": c.before, "after": c.after,
             "size": c.size, "p": c.p, "verdict": c.verdict, "lasting": c.lasting}
            for c in one.changes
        ],
    }  # fmt: skip
