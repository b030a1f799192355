"""`latency [PATHS…]`: time to the first token, and percentiles of those that follow."""

import argparse

from rich.console import Console

from bench.report.commands.reading import Subcommands, add_paths, read
from bench.report.formats import significant
from bench.report.rows import names, newest_cells
from bench.report.sheet import Entry, Sheet, show
from bench.store import Record, StoreError

HEADS = ["model", "task", "prompt", "first token ms", "± %", "p50 ms", "p95 ms", "p99 ms", "n",
         "tokens/s"]  # fmt: skip


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser("latency", help="time to first token and per-token percentiles")
    parser.set_defaults(run=run)
    add_paths(parser)


def run(options: argparse.Namespace) -> int:
    """Print the sheet; returns the exit code."""
    records, _ = read(options.paths)
    sheet = build(records)
    if not sheet.rows:
        raise StoreError("no record has latencies; run `python -m bench scenario=decode` first")
    show(sheet, Console(highlight=False))
    return 0


def build(records: list[Record]) -> Sheet:
    """One row a cell that wrote symbol by symbol."""
    rows = []
    for record in newest_cells(records):
        found, timing = record.get("latency"), record.get("timing") or {}
        if not found:
            continue
        model, task, _ = names(record)
        half = (found["ttft_ci_high_s"] - found["ttft_ci_low_s"]) / 2 / found["ttft_s"]
        rate = (record.get("figures") or {}).get("decode_per_s")
        rows.append(
            [Entry(model), Entry(task), Entry(found["prompt"]), _ms(found["ttft_s"]),
             Entry(half, f"{half:.1%}"), _ms(found.get("p50_s")), _ms(found.get("p95_s")),
             _ms(found.get("p99_s")), Entry(timing.get("n")),
             Entry(rate, "" if rate is None else significant(rate))]
        )  # fmt: skip
    note = "A percentile that n samples cannot determine is a dash. ±: 95 % interval of the median."
    return Sheet("Latency", HEADS, rows, [note])


def _ms(seconds: float | None) -> Entry:
    return Entry(seconds, "" if seconds is None else significant(seconds * 1e3))
