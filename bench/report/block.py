"""One block: comparable records of a task become rows of cells."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.report.baselines import baseline_rows, quality_of
from bench.report.cells import Cells
from bench.report.formats import MISSING
from bench.report.heading import context as context_line
from bench.report.heading import explain, title
from bench.report.heads import (
    METRICS,
    SPEEDS,
    Secondary,
    context_of,
    floors,
    head_columns,
    memory_scenario,
    secondaries,
    unit_of,
)
from bench.report.labels import label
from bench.report.layout import Block, Cell, Column, Notes, Row
from bench.report.noise import Score, summarise
from bench.report.ranking import objective_of, ranked, rule_between
from bench.report.select import Selection, Variant, code_key
from bench.report.targets import Targets, explain_target, target_cell, target_of


class BlockBuilder:
    """Builds one block of comparable records."""

    def __init__(
        self, selection: Selection, roots: list[Path], targets: Targets, stale: bool, repeats: bool
    ) -> None:
        self.selection = selection
        self.target = target_of(selection.records, selection.key.task, targets)
        self.roots = roots
        self.show_stale, self.show_repeats = stale, repeats
        self.notes = Notes()
        reference = next((r for r in selection.records if r["status"] == "ok"), selection.newest)
        self.cells = Cells(self.notes, reference)
        self.scores: dict[int, Score] = {}

    def build(self) -> Block:
        """The block with its rows in order and its notes."""
        selection, kind = self.selection, self.selection.key.kind
        older = selection.stale if self.show_stale else []
        older = older + (selection.repeats if self.show_repeats else [])
        variants = selection.current + older
        scenarios = SPEEDS.get(kind, ("train", "prefill", "decode", "sample"))
        units = {s: unit_of(variants, s, kind) for s in scenarios}
        context, peak = context_of(variants), memory_scenario(variants)
        summaries = [summarise(v.scenarios.get("quality", []), self.roots) for v in variants]
        metric, better = self._metric(summaries)
        floor = floors(variants)
        beside = secondaries(kind, variants)
        columns = head_columns(kind, metric, better, units, context, floor, beside, self.target)
        rows: list[Row] = []
        for index, (variant, summary) in enumerate(zip(variants, summaries, strict=True)):
            if summary is not None:
                self.scores[index] = summary
            is_older = index >= len(selection.current)
            cells = self._cells(variant, summary, beside, units, context, peak, older=is_older)
            rows.append(
                Row("older" if is_older else "model", self._identity(variant, index), cells)
            )
        current = ranked(rows[: len(selection.current)], columns, self.scores, self.notes)
        rows = (
            current + rows[len(selection.current) :] + baseline_rows(selection, columns, self.cells)
        )
        rows = [replace(row, rule_above=rule_between(above, row))
                for above, row in zip([None, *rows], rows, strict=False)]  # fmt: skip
        if self.target is not None and any(row.cells[-1].measures for row in rows):
            explain_target(METRICS.get(metric, (metric,))[0], better, self.target, self.notes)
        columns, rows = _drop_empty(columns, rows)
        rows = _renumbered(rows, self.notes)
        explain(
            selection, self.scores, self.notes, stale=self.show_stale, repeats=self.show_repeats
        )
        return Block(
            title=title(selection, metric, better), context=context_line(selection),
            identity={**vars(selection.key), "records": len(selection.records)},
            columns=columns, rows=tuple(rows), notes=self.notes.collect(),
        )  # fmt: skip

    def _metric(self, summaries: Sequence[Score | None]) -> tuple[str, str]:
        for summary in summaries:
            if summary is not None:
                return summary.metric, summary.better
        for record in self.selection.baselines:
            for baseline in record.get("baselines") or []:
                quality = quality_of(baseline)
                return quality.get("metric") or "score", quality.get("better") or ""
        return "score", ""

    def _identity(self, variant: Variant, index: int) -> dict[str, Any]:
        quality: dict[str, Any] = {}
        for record in variant.scenarios.get("quality", []):
            if record["status"] == "ok":
                quality = dict(record.get("quality") or {})
        score = self.scores.get(index)
        objective = objective_of(self.selection.key.kind, score, quality)
        return {
            "family": variant.family, "model": variant.model, "size": variant.size,
            "backend": variant.backend, "kernel": variant.kernel, "compile": variant.compile,
            "overrides": " ".join(variant.overrides),
            "objective": objective, "under": variant.objective, "tuned": quality.get("tuned"),
            "index": index,
        }  # fmt: skip

    def _cells(
        self, variant: Variant, summary: Score | None, beside: Sequence[Secondary],
        units: dict[str, str], context: int | None, peak: str, older: bool,
    ) -> tuple[Cell, ...]:  # fmt: skip
        made = self.cells
        records = variant.scenarios.get("quality", [])
        cells = [made.score(variant, summary)]
        cells += [made.secondary(spec, records) for spec in beside]
        cells += [made.speed(variant, scenario, unit) for scenario, unit in units.items()]
        cells += [made.memory(variant, peak), made.state(variant, context)]
        cells += [made.parameters(variant), made.seconds(variant)]
        cells.append(target_cell(records, self.target, self.notes))
        marks: list[str] = []
        if any((r.get("quality") or {}).get("tuned") is False for r in records):
            text = "untuned: its learning rate was not taken from the grid on validation"
            marks.append(self.notes.sign("†", text))
        measured = [cell for cell in cells if cell.records]
        if older:
            marks.append(self.notes.number(self._age(variant)))
        elif any(cell.stale for cell in measured):
            text = "stale: made with other source or packages than the newest record of this block"
            sign = self.notes.sign("‡", text)
            if all(cell.stale for cell in measured):
                marks.append(sign)
            else:
                cells = [replace(c, marks=(*c.marks, sign)) if c.stale else c for c in cells]
        rivals = self.selection.current + self.selection.stale
        return (Cell(label(variant, rivals), marks=tuple(marks)), *cells)

    def _age(self, variant: Variant) -> str:
        record = variant.records()[0]
        source = code_key(record)[0][:8] or "unknown"
        word = "earlier run" if variant in self.selection.repeats else "stale"
        digest = (record.get("config_hash") or "unknown")[:8]
        return f"{word}: {record['created'][:16]}, source {source}, configuration {digest}"


def _drop_empty(
    columns: tuple[Column, ...], rows: list[Row]
) -> tuple[tuple[Column, ...], list[Row]]:
    """Without the columns in which no row has anything to say."""
    kept = [
        place
        for place in range(len(columns))
        if any(row.cells[place].text not in ("", MISSING) or row.cells[place].marks for row in rows)
    ]
    cut = [replace(row, cells=tuple(row.cells[place] for place in kept)) for row in rows]
    return tuple(columns[place] for place in kept), cut


def _renumbered(rows: list[Row], notes: Notes) -> list[Row]:
    """Numbers of footnotes in reading order."""
    marks = (mark for row in rows for cell in row.cells for mark in cell.marks)
    order = list(dict.fromkeys(mark for mark in marks if mark.isdigit()))
    new = {old: str(place + 1) for place, old in enumerate(order)}
    notes.renumber(new)
    return [
        replace(
            row,
            cells=tuple(
                replace(cell, marks=tuple(new.get(mark, mark) for mark in cell.marks))
                for cell in row.cells
            ),
        )
        for row in rows
    ]
