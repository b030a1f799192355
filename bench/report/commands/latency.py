"""`latency [PATHS…]`: the first token, percentiles of the ones after it, and the rate."""

from collections.abc import Sequence
from typing import Any

from bench.report.cell_rows import NAMES, flaws, names, scaled
from bench.report.commands.cell_sheets import CellSheets
from bench.report.formats import significant
from bench.report.sheet import Entry, Sheet
from bench.store import Record

SCENARIOS = ("decode", "sample")
HEADS = [
    *NAMES, "first token ms", "95 %", "of", "p50 ms", "p95 ms", "p99 ms", "of calls", "rate",
]  # fmt: skip
MEANING = (
    "Percentiles are those of a call: one token of decode, a whole batch of sample. A dash: so few "
    "calls do not determine it."
)
EARLIER = "Records of an earlier version state the rate alone."


def sheet(records: Sequence[Record], _: Sequence[Record]) -> Sheet:
    """A row a record."""
    earlier = any(not r.get("latency") for r in records if r["status"] == "ok")
    return Sheet(
        "Latency",
        HEADS,
        [[*names(record), *_figures(record)] for record in records],
        [MEANING, *([EARLIER] if earlier else []), *flaws(records, invalid=True)],
    )


def _figures(record: Record) -> list[Entry]:
    latency: dict[str, Any] = dict(record.get("latency") or {})
    timing: dict[str, Any] = dict(record.get("timing") or {})
    first = latency.get("ttft_samples_s")
    return [
        scaled(latency.get("ttft_s"), 1e3),
        _interval(latency),
        Entry(len(first) if first else None),
        *(scaled(latency.get(f"p{percent}_s"), 1e3) for percent in (50, 95, 99)),
        Entry(timing.get("n")),
        _rate(record, timing.get("unit")),
    ]


def _interval(latency: dict[str, Any]) -> Entry:
    if latency.get("ttft_ci_low_s") is None:
        return Entry(None)
    low, high = (latency[f"ttft_ci_{side}_s"] * 1e3 for side in ("low", "high"))
    return Entry(f"[{significant(low)}, {significant(high)}]")


def _rate(record: Record, unit: str | None) -> Entry:
    value = (record.get("figures") or {}).get(f"{record['cell']['scenario']}_per_s")
    return Entry(None) if value is None else Entry(value, f"{significant(value)} {unit}/s")


COMMAND = CellSheets(
    name="latency",
    help="time to the first token, percentiles of the ones after it, and the rate",
    scenarios=SCENARIOS,
    shown=lambda record: True,
    missing=f"no record is of scenario {', '.join(SCENARIOS)}; run `python -m bench` first",
    sheets=lambda found, records: [sheet(found, records)],
    whole=sheet,
)
add = COMMAND.add
