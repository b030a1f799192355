"""`roofline [PATHS…]`: FLOPs and bytes of every cell, and its share of what the machine can do."""

from collections.abc import Mapping, Sequence

from bench.report.cell_rows import NAMES, TIMED, flaws, names, scaled
from bench.report.commands.cell_sheets import CellSheets
from bench.report.roofline import Ceilings, Where, find_ceilings, place, where
from bench.report.sheet import Entry, Sheet
from bench.store import Record

HEADS = [*NAMES, "MFLOP/call", "found by", "MB/call", "FLOP/byte", "GFLOP/s", "of attainable",
         "bound by"]  # fmt: skip


def build(records: Sequence[Record], every: Sequence[Record]) -> Sheet:
    """One row a cell, and the ceilings, which may stand in any record, below them."""
    ceilings = find_ceilings(every)
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
        "Bytes: read and written by all operators, as if nothing stayed in a cache: what did stay "
        "lifts a cell above a roof of memory. Above one of compute, the ceiling was taken too low."
    )
    roofed = [roof.record for roof in roofs.values()]
    return Sheet("Roofline", HEADS, rows, [*notes, *flaws([*records, *roofed], invalid=True)])


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


COMMAND = CellSheets(
    name="roofline",
    help="share of the machine's attainable rate, and which ceiling binds",
    scenarios=TIMED,
    shown=lambda record: bool(record.get("cost")),
    missing="no record states its cost; run the cells again with this version",
    sheets=lambda found, records: [build(found, records)],
    whole=build,
)
add = COMMAND.add
