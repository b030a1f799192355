"""`latency [PATHS…]`: the first token, percentiles of the ones after it, and the rate."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.arguments import Subcommands, add_paths
from bench.errors import BadInput
from bench.report.cell_rows import NAMES, by_heading, compact, flaws, names, scaled
from bench.report.commands.reading import read
from bench.report.formats import significant
from bench.report.sheet import Entry, Sheet, show, to_csv
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


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "latency", help="time to the first token, percentiles of the ones after it, and the rate"
    )
    parser.set_defaults(run=run)
    add_paths(parser)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the values, too")


def run(options: argparse.Namespace) -> int:
    """Print a sheet for each machine; returns the exit code."""
    records, _ = read(options.paths)
    groups = by_heading(records, SCENARIOS)
    if not groups:
        raise BadInput(
            f"no record is of scenario {', '.join(SCENARIOS)}; run `python -m bench` first"
        )
    console = Console(highlight=False)
    for heading, found in groups.items():
        console.print()
        show(compact(sheet(heading, found)), console)
    if options.csv:
        to_csv(sheet("", [record for found in groups.values() for record in found]), options.csv)
    return 0


def sheet(heading: str, records: Sequence[Record]) -> Sheet:
    """A row a record."""
    earlier = any(not r.get("latency") for r in records if r["status"] == "ok")
    return Sheet(
        f"Latency · {heading}",
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
