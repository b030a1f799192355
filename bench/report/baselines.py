"""The plain baselines that ground a task's numbers, as rows below the families."""

import math
from dataclasses import replace
from typing import Any

from bench.report.cells import ABSENT, BLANK, Cells
from bench.report.formats import limit, score, significant
from bench.report.heads import SECONDARY, lookup
from bench.report.layout import Cell, Column, Measure, Row
from bench.report.noise import Z
from bench.report.select import Selection
from bench.store.record import BaselinePart


def baseline_rows(selection: Selection, columns: tuple[Column, ...], made: Cells) -> list[Row]:
    """The plain rivals, best first."""
    rows: list[tuple[float, Row]] = []
    kind = selection.key.kind
    for record in selection.baselines:
        if record["status"] != "ok":
            why = limit(record.get("reason") or "no reason recorded")
            made.notes.add(f"Plain baselines failed: {why}")
        for baseline in record.get("baselines") or []:
            quality = quality_of(baseline)
            value, cell = quality.get("value"), ABSENT
            sign = -1 if quality.get("better") == "higher" else 1
            if value is not None:
                stderr = quality.get("stderr")
                half = Z * stderr if stderr and math.isfinite(stderr) else None
                measure = Measure(
                    quality.get("metric") or "score", value, better=quality.get("better") or "",
                    bound=bool(quality.get("bound")), low=None if half is None else value - half,
                    high=None if half is None else value + half,
                    over="" if half is None else "items", n=quality.get("n_items"),
                )  # fmt: skip
                text = score(value, half, bool(quality.get("bound")))
                cell = Cell(text, (measure,), records=(record["id"],))
            cells = {"model": Cell(baseline.get("name") or "baseline"), "score": cell}
            for spec in SECONDARY.get(kind, ()):
                found = lookup(quality, spec.keys)
                if found is not None:
                    cells[spec.key + "_secondary"] = made.plain(spec, [found])
            seconds = baseline.get("seconds")
            if seconds is not None:
                measure = Measure("train_seconds", seconds, unit="s")
                cells["seconds"] = Cell(significant(seconds, 2), (measure,))
            if made.outdated(record):
                sign_text = "stale: made with other source or packages than the newest record"
                mark = made.notes.sign("‡", f"{sign_text} of this block")
                cells["model"] = replace(cells["model"], marks=(mark,))
            identity = {
                "family": "baseline",
                "model": baseline.get("name"),
                "objective": "baseline",
                "description": baseline.get("description"),
            }
            row = Row("baseline", identity, tuple(cells.get(c.key, BLANK) for c in columns))
            rows.append((float("inf") if value is None else sign * value, row))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def quality_of(baseline: BaselinePart) -> dict[str, Any]:
    """The score of a baseline, which stands in it or under `quality`."""
    return dict(baseline.get("quality") or baseline)
