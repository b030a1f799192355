"""The plain baselines that ground a task's numbers, as rows below the families."""

import math
from collections.abc import Mapping
from typing import Any

from bench.report.cells import ABSENT, BLANK, Cells
from bench.report.formats import limit, score, significant
from bench.report.heads import SECONDARY, lookup
from bench.report.layout import Cell, Column, Measure, Row
from bench.report.noise import Z
from bench.report.select import Selection
from bench.store.parts import BaselinePart
from bench.store.record import Record


def baseline_rows(selection: Selection, columns: tuple[Column, ...], made: Cells) -> list[Row]:
    """The plain rivals, best first."""
    rows: list[tuple[float, Row]] = []
    for record in selection.baselines:
        if record["status"] != "ok":
            why = limit(record.get("reason") or "no reason recorded")
            made.notes.add(f"Plain baselines failed: {why}")
        for baseline in record.get("baselines") or []:
            cells = _cells(baseline, record, selection.key.kind, made)
            identity = {
                "family": "baseline",
                "model": baseline.get("name"),
                "objective": "baseline",
                "description": baseline.get("description"),
            }
            row = Row("baseline", identity, tuple(cells.get(c.key, BLANK) for c in columns))
            rows.append((_place(quality_of(baseline)), row))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def _place(quality: Mapping[str, Any]) -> float:
    """Smaller is better; a rival without a score comes last."""
    value = quality.get("value")
    if value is None:
        return float("inf")
    return float(-value if quality.get("better") == "higher" else value)


def _cells(baseline: BaselinePart, record: Record, kind: str, made: Cells) -> dict[str, Cell]:
    """The cells of a rival by column; it has none of speed and memory."""
    quality = quality_of(baseline)
    marks: tuple[str, ...] = ()
    if made.outdated(record):
        stale = "stale: made with other source or packages than the newest record of this block"
        marks = (made.notes.sign("‡", stale),)
    cells = {
        "model": Cell(baseline.get("name") or "baseline", marks=marks),
        "score": _score(quality, record),
    }
    for spec in SECONDARY.get(kind, ()):
        found = lookup(quality, spec.keys)
        if found is not None:
            cells[spec.key + "_secondary"] = made.plain(spec, [found])
    seconds = baseline.get("seconds")
    if seconds is not None:
        measure = Measure("train_seconds", seconds, unit="s")
        cells["seconds"] = Cell(significant(seconds, 2), (measure,))
    return cells


def _score(quality: Mapping[str, Any], record: Record) -> Cell:
    value, bound = quality.get("value"), bool(quality.get("bound"))
    if value is None:
        return ABSENT
    stderr = quality.get("stderr")
    half = Z * stderr if stderr and math.isfinite(stderr) else None
    measure = Measure(
        quality.get("metric") or "score", value, better=quality.get("better") or "", bound=bound,
        low=None if half is None else value - half, high=None if half is None else value + half,
        over="" if half is None else "items", n=quality.get("n_items"),
    )  # fmt: skip
    return Cell(score(value, half, bound), (measure,), records=(record["id"],))


def quality_of(baseline: BaselinePart) -> dict[str, Any]:
    """The score of a baseline, which stands in it or under `quality`."""
    return dict(baseline.get("quality") or baseline)
