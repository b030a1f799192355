"""`roofline [PATHS…]`: FLOPs and bytes of every cell, and its share of what the machine can do."""

import argparse
from collections.abc import Mapping, Sequence

from rich.console import Console

from bench.arguments import Subcommands, add_paths
from bench.errors import BadInput
from bench.report.cell_rows import NAMES, TIMED, by_heading, compact, names, scaled
from bench.report.commands.reading import read
from bench.report.roofline import Ceilings, Where, find_ceilings, place, where
from bench.report.sheet import Entry, Sheet, show
from bench.store import Record

HEADS = [*NAMES, "MFLOP/call", "found by", "MB/call", "FLOP/byte", "GFLOP/s", "of attainable",
         "bound by"]  # fmt: skip


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser("roofline", help="share of the machine's attainable rate")
    parser.set_defaults(run=run)
    add_paths(parser)


def run(options: argparse.Namespace) -> int:
    """Print the sheet; returns the exit code."""
    records, _ = read(options.paths)
    groups = by_heading([r for r in records if r.get("cost")], TIMED)
    if not groups:
        raise BadInput("no record states its cost; run the cells again with this version")
    ceilings = find_ceilings(records)
    console = Console(highlight=False)
    for heading, found in groups.items():
        console.print()
        console.print(heading, markup=False, soft_wrap=True)
        show(compact(build(found, ceilings)), console)
    return 0


def build(records: Sequence[Record], ceilings: Mapping[Where, Ceilings]) -> Sheet:
    """One row a cell, and the ceilings above them."""
    rows = [_row(record, ceilings) for record in records]
    roofs = {key: ceilings[key] for record in records if (key := where(record)) in ceilings}
    notes = [
        f"Ceilings here: matrix product {roof.flops_per_s / 1e9:.0f} GFLOP/s, copy "
        f"{roof.bytes_per_s / 1e9:.1f} GB/s, ridge at {roof.ridge:.1f} FLOP/byte."
        for roof in roofs.values()
    ]
    if not roofs:
        notes.append("No ceilings are known here; run `python -m bench scenario=ceilings`.")
    notes.append(
        "Bytes: read and written by all operators, as if nothing stayed in a cache; a share above "
        "100 % means that much did."
    )
    return Sheet("Roofline", HEADS, rows, notes)


def _row(record: Record, ceilings: Mapping[Where, Ceilings]) -> list[Entry]:
    cost = record["cost"]
    method = cost.get("method") or cost.get("reason")
    found = [*names(record), scaled(cost.get("flops"), 1e-6), Entry(method)]
    found.append(scaled(cost.get("bytes_moved"), 1e-6))
    point = place(record, ceilings)
    if point is None:
        return [*found, *[Entry(None)] * 4]
    share = Entry(point.share, f"{point.share:.0%}")
    rate = scaled(point.rate, 1e-9)
    return [*found, scaled(point.intensity, 1.0), rate, share, Entry(point.binds)]
