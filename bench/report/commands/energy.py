"""`energy [PATHS…]`: Joules of repeated calls, an item and a second, or why there are none."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.arguments import Subcommands, add_paths
from bench.errors import BadInput
from bench.report.cell_rows import NAMES, TIMED, by_heading, compact, flaws, names, scaled
from bench.report.commands.reading import read
from bench.report.sheet import Entry, Sheet, show, to_csv
from bench.store import Record

HEADS = [
    *NAMES, "mJ/item", "item", "J", "window s", "W", "calls", "calls %", "domains", "source",
]  # fmt: skip
MEANING = (
    "Counters hold all that was used on their package or GPU, idle power too. Calls %: the share "
    "of the window that the timed calls make up; the rest is what prepares them, such as reading "
    "the prompt again, and the clock's drift since they were timed."
)


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "energy", help="Joules of repeated calls, an item and a second, or why there are none"
    )
    parser.set_defaults(run=run)
    add_paths(parser)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the values, too")


def run(options: argparse.Namespace) -> int:
    """Print a sheet for each machine; returns the exit code."""
    records, _ = read(options.paths)
    groups = by_heading([record for record in records if record.get("energy")], TIMED)
    if not groups:
        raise BadInput("no record was asked for Joules; run `python -m bench energy=true` first")
    console = Console(highlight=False)
    for heading, found in groups.items():
        console.print()
        show(compact(sheet(heading, found)), console)
    if options.csv:
        to_csv(sheet("", [record for found in groups.values() for record in found]), options.csv)
    return 0


def sheet(heading: str, records: Sequence[Record]) -> Sheet:
    """A row a record."""
    return Sheet(
        f"Energy · {heading}",
        HEADS,
        [[*names(record), *_figures(record)] for record in records],
        [MEANING, *_reasons(records), *flaws(records, invalid=False)],
    )


def _figures(record: Record) -> list[Entry]:
    energy: dict[str, Any] = dict(record.get("energy") or {})
    timing: dict[str, Any] = dict(record.get("timing") or {})
    domains: Mapping[str, float] = energy.get("domains") or {}
    joules, seconds = energy.get("joules"), energy.get("window_s")
    return [
        scaled(energy.get("joules_per_item"), 1e3),
        Entry(timing.get("unit")),
        scaled(joules, 1.0),
        scaled(seconds, 1.0),
        scaled(joules / seconds if joules and seconds else None, 1.0),
        Entry(energy.get("calls")),
        scaled(_share(energy, timing), 100.0),
        Entry(", ".join(domains) or None),
        Entry(energy.get("source")),
    ]


def _share(energy: Mapping[str, Any], timing: Mapping[str, Any]) -> float | None:
    """How much of the window the calls make up, by their median time."""
    calls, seconds, median = energy.get("calls"), energy.get("window_s"), timing.get("median_s")
    return calls * median / seconds if calls and seconds and median else None


def _reasons(records: Sequence[Record]) -> list[str]:
    """Each reason for what is missing, with the cells that it holds for."""
    found: dict[str, list[str]] = {}
    for record in records:
        if reason := (record.get("energy") or {}).get("reason"):
            found.setdefault(reason, []).append(" ".join(str(e) for e in names(record)[:3]))
    return [f"{reason} ({_few(cells)})" for reason, cells in found.items()]


def _few(cells: Sequence[str]) -> str:
    return cells[0] if len(cells) == 1 else f"{cells[0]} and {len(cells) - 1} more"
