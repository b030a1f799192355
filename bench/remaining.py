"""What is finished already, and what is left to run of a set of cells."""

from collections import Counter
from collections.abc import Sequence

from bench.cell import Cell
from bench.store import Record


def finished(records: Sequence[Record], repeats: int) -> dict[str, Record]:
    """Results that need not be taken again, by key; a later one wins.

    A cell that is to be repeated has its number of results, one that cannot be has one.
    """
    results = [r for r in records if r["status"] in ("ok", "unsupported")]
    counts = Counter(r["key"] for r in results)
    return {r["key"]: r for r in results if r["status"] != "ok" or counts[r["key"]] >= repeats}


def rounds(
    cells: Sequence[Cell], records: Sequence[Record], repeats: int, *, force: bool = False
) -> list[Cell]:
    """What is left to run: every cell as often as it lacks results, in rounds over all cells.

    Rounds spread what drifts on a machine over all cells alike.
    """
    counts = Counter(r["key"] for r in records if r["status"] == "ok" and not force)
    left = {c.key: 1 if c.unsupported else repeats - counts[c.key] for c in cells}
    return [cell for number in range(repeats) for cell in cells if left[cell.key] > number]


def lacks_energy(record: Record) -> bool:
    """Whether a cell that repeats a call was measured without asking for Joules."""
    rate = f"{record['cell']['scenario']}_per_s"
    return rate in (record.get("figures") or {}) and not record.get("energy")
