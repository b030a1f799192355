"""What is finished already, and what is left to run of a set of cells."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.cell import Cell
from bench.predict import fit_budget
from bench.store import Record


@dataclass(frozen=True)
class Remaining:
    """Results there are, in brief and by key, and processes that there are none of.

    A cell stands among the processes as often as it is to run, or is left out by the budget.
    """

    found: Mapping[str, Record]
    todo: Sequence[Cell]
    left_out: Sequence[Cell]


def remaining(
    cells: Sequence[Cell],
    records: Sequence[Record],
    *,
    repeats: int = 1,
    force: bool = False,
    energy: bool = False,
    budget: float | None = None,
) -> Remaining:
    """Sort out `cells`, whose keys and times are known; the budget cuts processes, in rounds."""
    if energy:
        records = [record for record in records if not lacks_energy(record)]
    keys = {cell.key for cell in cells}
    found = {} if force else finished([r for r in records if r["key"] in keys], repeats)
    lacking = [cell for cell in cells if cell.key not in found]
    todo = rounds(lacking, records, repeats, force=force)
    left_out: list[Cell] = []
    if budget is not None:
        todo, left_out = fit_budget(todo, budget)
    return Remaining(found, todo, left_out)


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
    """Every cell as often as it lacks results, in rounds over all cells.

    Rounds spread what drifts on a machine over all cells alike.
    """
    counts = Counter(r["key"] for r in records if r["status"] == "ok" and not force)
    left = {c.key: 1 if c.unsupported else repeats - counts[c.key] for c in cells}
    return [cell for number in range(repeats) for cell in cells if left[cell.key] > number]


def lacks_energy(record: Record) -> bool:
    """Whether a cell that repeats a call was measured without asking for Joules."""
    rate = f"{record['cell']['scenario']}_per_s"
    return rate in (record.get("figures") or {}) and not record.get("energy")
