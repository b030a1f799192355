"""`energy [PATHS…]`: Joules of repeated calls, an item and a second, or why there are none."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report.cell_rows import NAMES, TIMED, flaws, names, scaled
from bench.report.commands.cell_sheets import CellSheets
from bench.report.sheet import Entry, Sheet
from bench.store import Record

HEADS = [
    *NAMES, "mJ/item", "item", "J", "window s", "W", "calls", "calls %", "domains", "source",
]  # fmt: skip
MEANING = (
    "Counters hold all that was used on their package or GPU, idle power too. Calls %: the share "
    "of the window that the timed calls make up; the rest is what prepares them, such as reading "
    "the prompt again, and the clock's drift since they were timed."
)


def sheet(records: Sequence[Record], _: Sequence[Record]) -> Sheet:
    """A row a record."""
    return Sheet(
        "Energy",
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


COMMAND = CellSheets(
    name="energy",
    help="Joules of repeated calls, an item and a second, or why there are none",
    scenarios=TIMED,
    shown=lambda record: bool(record.get("energy")),
    missing="no record was asked for Joules; run `python -m bench energy=true` first",
    sheets=lambda found, records: [sheet(found, records)],
    whole=sheet,
)
add = COMMAND.add
