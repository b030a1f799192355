"""How a row's records become the cell of each column."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report.formats import MISSING, count, limit, score, shorten, significant
from bench.report.heads import UNITS, Secondary, lookup, state_of
from bench.report.layout import Cell, Measure, Notes
from bench.report.noise import Score, provisional, t_half
from bench.report.select import Variant, code_key
from bench.store.record import Record

BLANK = Cell(status="")
ABSENT = Cell(MISSING, status="missing")
SCORE_WIDTH, CELL_WIDTH = 14, 8
UNLEARNED = "not learned in the budget"  # as a probe says it in `quality.notes`


class Cells:
    """Makes the cells of one block; footnotes are collected on the way."""

    def __init__(self, notes: Notes, newest: Record) -> None:
        self.notes = notes
        self.newest = code_key(newest)

    def outdated(self, record: Record) -> bool:
        """Whether source or packages differ from those of the block's newest record."""
        return code_key(record) != self.newest

    def score(self, variant: Variant, summary: Score | None) -> Cell:
        """Quality ± uncertainty."""
        records = variant.scenarios.get("quality", [])
        if summary is None:
            return self.failure(records, SCORE_WIDTH)
        half = summary.half
        measure = Measure(
            summary.metric, summary.value, better=summary.better, bound=summary.bound,
            low=None if half is None else summary.value - half,
            high=None if half is None else summary.value + half, over=summary.over, n=summary.n,
        )  # fmt: skip
        text = score(summary.value, half, summary.bound)
        if summary.bound:
            self.notes.sign("≤", "an upper bound of the exact value")
        for problem in summary.problems:
            self.notes.add(limit(problem) + "; the paired comparison does without it")
        marks = self._unlearned(records)
        if words := provisional(len(summary.seeds)):
            marks += (self.notes.number(words),)
        return self.finish(Cell(text, (measure,), marks=marks), records)

    def _unlearned(self, records: Sequence[Record]) -> tuple[str, ...]:
        """A mark where no seed got beyond a guess."""
        said = {
            ((record.get("quality") or {}).get("notes") or {}).get("learned")
            for record in records
            if record["status"] == "ok"
        }
        return (self.notes.number(UNLEARNED),) if said == {UNLEARNED} else ()

    def secondary(self, spec: Secondary, records: Sequence[Record]) -> Cell:
        """A score beside the main one: the mean over seeds, or a word."""
        values = [
            found
            for record in records
            if record["status"] == "ok"
            and (found := lookup(record.get("quality") or {}, spec.keys)) is not None
        ]
        return self.plain(spec, values) if values else ABSENT

    def plain(self, spec: Secondary, values: Sequence[Any]) -> Cell:
        """A cell of raw secondary values."""
        if not all(isinstance(value, int | float) for value in values):
            text = "/".join(dict.fromkeys(str(value) for value in values))
            return Cell(text, (Measure(spec.key, label=text),))
        value = sum(map(float, values)) / len(values)
        if spec.decimals is not None:
            text = f"{value:.{spec.decimals}f}"
        else:
            text = f"{value:.0f}" if value == int(value) else significant(value)
        return Cell(text, (Measure(spec.key, value, better=spec.better, n=len(values)),))

    def speed(self, variant: Variant, scenario: str, unit: str) -> Cell:
        """Items per second: mean over seeds, interval over seeds or over the calls of one."""
        records = variant.scenarios.get(scenario, [])
        # A model without a state writes whole texts instead: a speed of its own kind.
        instead = scenario == "decode" and not records and "sample" in variant.scenarios
        if instead:
            scenario = "sample"
            records = variant.scenarios[scenario]
        figure = f"{scenario}_per_s"
        found: list[tuple[Record, float]] = []
        for record in records:
            value = (record.get("figures") or {}).get(figure)
            if record["status"] == "ok" and isinstance(value, int | float):
                found.append((record, float(value)))
        if not found:
            return self.failure(records, CELL_WIDTH)
        values = [value for _, value in found]
        mean = sum(values) / len(values)
        timing = found[0][0].get("timing") or {}
        own = timing.get("unit") or unit
        measure = Measure(
            figure, mean, unit=f"{own}/s", better="higher", **_spread(values, mean, timing)
        )
        marks: tuple[str, ...] = ()
        if own != unit:
            marks = (self.notes.number(f"in {UNITS.get(own, (own + '/s', 1.0))[0]}"),)
        if instead:
            marks += (self.notes.number("whole texts sampled, there is no state to decode from"),)
        divisor = UNITS.get(own, (own, 1.0))[1]
        return self.finish(Cell(significant(mean / divisor), (measure,), marks=marks), records)

    def memory(self, variant: Variant, scenario: str) -> Cell:
        """Peak bytes while `scenario` ran, the same scenario for every row."""
        records = [r for r in variant.scenarios.get(scenario, []) if r["status"] == "ok"]
        sections: list[dict[str, Any]] = [dict(record.get("memory") or {}) for record in records]
        peaks = [float(s["peak_bytes"]) for s in sections if s.get("peak_bytes") is not None]
        if not peaks:
            return ABSENT
        methods = {limit(str(s.get("method") or "method not stated"), 120) for s in sections}
        where = "a training step" if scenario == "train" else f"scenario {scenario}"
        self.notes.add(f"Peak memory is that of {where} ({', '.join(sorted(methods))}).")
        peak = sum(peaks) / len(peaks)
        measure = Measure("peak_bytes", peak, unit="bytes", better="lower", n=len(peaks))
        return self.finish(Cell(significant(peak / 2**20), (measure,)), records, timed=False)

    def state(self, variant: Variant, context: int | None) -> Cell:
        """Bytes carried from symbol to symbol at a stated context."""
        found = state_of(variant)
        if found is None:
            return ABSENT
        text = significant(found.size / 1024)
        if found.context != context:
            text += f" @{found.context}"
        label = None if found.context is None else f"context {found.context}"
        measure = Measure("state_bytes", found.size, label, "bytes", better="lower")
        return self.finish(Cell(text, (measure,)), [found.record], timed=False)

    def parameters(self, variant: Variant) -> Cell:
        """The count that is matched between families, and all of them."""
        for record in variant.records():
            parts = record.get("parameters") or {}
            matched, total = parts.get("matched"), parts.get("total")
            if matched is None or total is None:
                continue
            measures = [Measure(f"parameters_{name}", float(value))
                        for name in ("matched", "total", "active", "target")
                        if isinstance(value := parts.get(name), int | float)]  # fmt: skip
            target = parts.get("target")
            marks: tuple[str, ...] = ()
            if target and abs(matched / target - 1) > 0.03:
                marks = (self.notes.number(f"more than 3 % from the size's {count(target)}"),)
            return Cell(f"{count(matched)}/{count(total)}", tuple(measures), marks=marks)
        return ABSENT

    def seconds(self, variant: Variant) -> Cell:
        """Seconds of training behind the score."""
        sections = [
            record.get("quality") or {}
            for record in variant.scenarios.get("quality", [])
            if record["status"] == "ok"
        ]
        found = [float(s["train_seconds"]) for s in sections if s.get("train_seconds") is not None]
        if not found:
            return ABSENT
        mean = sum(found) / len(found)
        measures = [Measure("train_seconds", mean, unit="s", n=len(found))]
        for name in ("train_items", "train_tokens", "lr"):
            value = sections[0].get(name)
            if isinstance(value, int | float):
                measures.append(Measure(name, float(value)))
        return Cell(significant(mean, 2) if mean < 10 else f"{mean:.0f}", tuple(measures))

    def failure(self, records: Sequence[Record], width: int) -> Cell:
        """The reason in place of a number, or a dash where nothing was run."""
        if not records:
            return ABSENT
        record = records[0]
        if record["status"] == "ok":
            text, reason = MISSING, "ran, but recorded no such figure"
        else:
            reason = record.get("reason") or "no reason recorded"
            text, more = shorten(reason, record["status"], width)
            if not more:
                cell = Cell(text, status=record["status"], reason=reason)
                return self.finish(cell, records)
        mark = self.notes.number(limit(reason))
        status = "missing" if record["status"] == "ok" else record["status"]
        return self.finish(Cell(text, marks=(mark,), status=status, reason=reason), records)

    def finish(self, cell: Cell, records: Sequence[Record], *, timed: bool = True) -> Cell:
        """Add what the records say against a figure: failed seeds, and against times: invalid."""
        marks = list(cell.marks)
        valid = True
        for record in records:
            validity = record.get("validity") or {}
            if timed and record["status"] == "ok" and validity.get("valid") is False:
                valid = False
                why = limit(validity.get("reason") or "no reason recorded")
                marks.append(self.notes.number(f"invalid: {why}"))
        bad = [record for record in records if record["status"] != "ok"]
        if cell.status == "ok" and bad:
            why = limit(bad[0].get("reason") or "no reason recorded")
            marks.append(self.notes.number(f"{len(bad)} of {len(records)} seeds failed: {why}"))
        return Cell(
            cell.text, cell.measures, marks=tuple(dict.fromkeys(marks)), status=cell.status,
            reason=cell.reason, valid=valid, stale=any(map(self.outdated, records)),
            records=tuple(record["id"] for record in records),
        )  # fmt: skip


def _spread(values: Sequence[float], mean: float, timing: Mapping[str, Any]) -> dict[str, Any]:
    """The interval of a speed and what it is taken over: seeds, or the calls of a single one."""
    if len(values) >= 2:
        half = t_half(values)
        return {"low": mean - half, "high": mean + half, "over": "seeds", "n": len(values)}
    median, fast, slow = timing.get("median_s"), timing.get("ci_low_s"), timing.get("ci_high_s")
    if median and fast and slow:
        low, high = mean * median / slow, mean * median / fast
        return {"low": low, "high": high, "over": "calls", "n": int(timing.get("n") or 0)}
    return {"over": "", "n": len(values)}
