"""What the sheets with a row a cell share: the newest record of each, and how it is named."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bench.report.formats import significant
from bench.report.heading import context
from bench.report.select import overrides, select
from bench.report.sheet import Entry, Sheet
from bench.store import Record

NAMES = ("model", "task", "scenario", "size", "seed", "changed")
TIMED = ("train", "prefill", "decode", "sample")  # scenarios that repeat one call
# Columns that are left out where they say the same of every row.
IDLE = ("size", "seed", "changed")
Groups = dict[str, list[Record]]


def by_heading(records: Iterable[Record], scenarios: Sequence[str]) -> Groups:
    """The newest records of cells of `scenarios`, below the machine and versions they share."""
    groups: Groups = {}
    for selection in select([r for r in records if r["cell"]["scenario"] in scenarios]):
        found = [record for row in selection.current for record in row.records()]
        wanted = [record for record in found if record["status"] != "unsupported"]
        wanted.sort(key=lambda record: _order(record, scenarios))
        groups.setdefault(context(selection), []).extend(wanted)
    return {heading: found for heading, found in groups.items() if found}


def _order(record: Record, scenarios: Sequence[str]) -> tuple[int, str, str, str, int]:
    cell = record["cell"]
    place = scenarios.index(cell["scenario"])
    return place, cell["model"], cell.get("objective", ""), str(cell.get("size")), cell["seed"]


def names(record: Record) -> list[Entry]:
    """The entries below `NAMES`."""
    cell = record["cell"]
    under = [f"under {cell['objective']}"] if cell.get("objective") else []
    changed = [*under, *overrides(record), *(["compiled"] if cell.get("compile") else [])]
    return [
        Entry(cell["model"]), Entry(cell["task"]), Entry(cell["scenario"]),
        Entry(cell.get("size")), Entry(cell["seed"]), Entry(" ".join(changed)),
    ]  # fmt: skip


def scaled(value: float | None, scale: float) -> Entry:
    """A value in another unit, at three significant digits."""
    return Entry(None) if value is None else Entry(value * scale, significant(value * scale))


def flaws(records: Iterable[Record], *, invalid: bool) -> list[str]:
    """Sentences on cells that failed, and on those whose timing is `invalid` where it is shown."""
    found = []
    for record in records:
        name = " ".join(str(entry) for entry in names(record)[:3])
        reason = (record.get("validity") or {}).get("reason")
        if record["status"] != "ok":
            found.append(f"{name} failed: {record.get('reason')}")
        elif invalid and reason:
            found.append(f"{name} is invalid: {reason}")
    return found


def compact(sheet: Sheet) -> Sheet:
    """The sheet without columns that are empty, or idle and the same in every row."""
    kept = []
    for place, head in enumerate(sheet.columns):
        values = {row[place].value for row in sheet.rows}
        if values - {None, ""} and not (head in IDLE and len(values) == 1):
            kept.append(place)
    return replace(
        sheet,
        columns=[sheet.columns[place] for place in kept],
        rows=[[row[place] for place in kept] for row in sheet.rows],
    )
