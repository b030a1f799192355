"""`roofline [PATHS…]`: FLOPs and bytes of every cell, and its share of what the machine can do."""

import argparse

from rich.console import Console

from bench.report.commands.reading import Subcommands, add_paths, read
from bench.report.formats import significant
from bench.report.roofline import find_ceilings, place
from bench.report.rows import names, newest_cells
from bench.report.sheet import Entry, Sheet, show
from bench.store import Record, StoreError

HEADS = ["model", "task", "scenario", "MFLOP/call", "found by", "MB/call", "FLOP/byte", "GFLOP/s",
         "of attainable", "bound by"]  # fmt: skip


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser("roofline", help="share of the machine's attainable rate")
    parser.set_defaults(run=run)
    add_paths(parser)


def run(options: argparse.Namespace) -> int:
    """Print the sheet; returns the exit code."""
    records, _ = read(options.paths)
    sheet = build(records)
    if not sheet.rows:
        raise StoreError("no record states its cost; run the cells again with this version")
    show(sheet, Console(highlight=False))
    return 0


def build(records: list[Record]) -> Sheet:
    """One row a cell whose cost was looked at."""
    ceilings = find_ceilings(records)
    rows = []
    for record in newest_cells(records):
        cost = record.get("cost")
        if not cost:
            continue
        head = [Entry(name) for name in names(record)]
        flops, moved = cost.get("flops"), cost.get("bytes_moved")
        method = cost.get("method") or cost.get("reason")
        head += [_scaled(flops, 1e6), Entry(method), _scaled(moved, 1e6)]
        point = place(record, ceilings)
        if point is None:
            rows.append([*head, *[Entry(None)] * 4])
            continue
        share = Entry(point.share, f"{point.share:.0%}")
        rows.append(
            [*head, Entry(point.intensity, significant(point.intensity)),
             _scaled(point.rate, 1e9), share, Entry(point.binds)]
        )  # fmt: skip
    notes = [
        f"Ceilings ({', '.join(str(part) for part in key[1:])} threads): matrix product "
        f"{roof.flops_per_s / 1e9:.0f} GFLOP/s, copy {roof.bytes_per_s / 1e9:.1f} GB/s, "
        f"ridge at {roof.ridge:.1f} FLOP/byte."
        for key, roof in ceilings.items()
    ]
    if not ceilings:
        notes.append("No ceilings are known here; run `python -m bench scenario=ceilings`.")
    notes.append(
        "Bytes: read and written by all operators, as if nothing stayed in a cache; a share above "
        "100 % means that much did."
    )
    return Sheet("Roofline", HEADS, rows, notes)


def _scaled(value: float | None, scale: float) -> Entry:
    return Entry(value, "" if value is None else significant(value / scale))
