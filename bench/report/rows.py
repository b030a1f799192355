"""The cells that a sheet of one quantity lists: the newest record of each, as the table orders."""

from collections.abc import Iterable, Iterator

from bench.report.select import select
from bench.store.record import Record


def newest_cells(records: Iterable[Record]) -> Iterator[Record]:
    """The newest successful record of each cell, block by block, one seed each."""
    for selection in select([r for r in records if r["status"] == "ok"]):
        for variant in selection.current:
            for found in variant.scenarios.values():
                yield found[0]


def names(record: Record) -> list[str]:
    """Model, task, scenario and what was changed."""
    cell = record["cell"]
    changed = " ".join(cell.get("overrides") or [])
    return [f"{cell['model']} {changed}".strip(), cell["task"], cell["scenario"]]
