"""Which cells of base and head stand side by side, and whether they may be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.report.compare.metrics import SEPARATOR, timed
from bench.report.select import code_key, overrides
from bench.store.record import Record, created

NAMES = ("model", "size", "task", "scenario")
AXES = ("objective", "match", "device", "dtype", "threads", "compile", "suite")


@dataclass
class Side:
    """The records of one cell, the newest first, all of one source, machine and data."""

    records: list[Record] = field(default_factory=list)

    @property
    def good(self) -> list[Record]:
        return [record for record in self.records if record["status"] == "ok"]

    @property
    def failed(self) -> list[Record]:
        return [record for record in self.records if record["status"] == "failed"]

    @property
    def status(self) -> str:
        """That of the newest record."""
        return self.records[0]["status"]

    @property
    def machine(self) -> str | None:
        """The key of the machine that the records are of."""
        return circumstances(self.records[0])["machine"]


@dataclass
class Matched:
    """One cell on both sides; a side may be empty. Seeds are repetitions."""

    name: str
    base: Side
    head: Side


def match(base: Sequence[Record], head: Sequence[Record]) -> list[Matched]:
    """Cells of both sides by what was asked: model, size, task, scenario, axes and overrides.

    The device, the dtype and the like are part of the name, so that a cell that ran elsewhere is
    another cell. What was not asked (machine, data, backend) is looked at by `obstacle`.
    """
    sides = [_by_name(base), _by_name(head)]
    names = sorted(sides[0].keys() | sides[1].keys())
    return [Matched(name, *(side.get(name, Side()) for side in sides)) for name in names]


def newest(records: Sequence[Record]) -> list[Record]:
    """Of each cell the records that stand beside its newest one."""
    return [record for side in _by_name(records).values() for record in side.records]


def _by_name(records: Sequence[Record]) -> dict[str, Side]:
    found: dict[str, Side] = {}
    for record in sorted(records, key=lambda r: (created(r), r["id"]), reverse=True):
        side = found.setdefault(name_of(record), Side())
        if not side.records or _beside(record, side.records[0]):
            side.records.append(record)
    return found


def _beside(record: Record, newest: Record) -> bool:
    """Whether records are repetitions: of one source, under the same circumstances."""
    alike = differences(circumstances(record), circumstances(newest)) is None
    return alike and code_key(record) == code_key(newest)


def name_of(record: Mapping[str, Any]) -> str:
    """What a finding calls a cell: model · size · task · scenario, then what its axes are."""
    cell = record["cell"]
    words = [str(cell[name]) for name in NAMES if cell.get(name)]
    axes = [f"{axis}={cell[axis]}" for axis in AXES if cell.get(axis)]
    return SEPARATOR.join(words) + f" ({' '.join([*axes, *overrides(record)])})"  # type: ignore[arg-type]


def obstacle(cell: Matched) -> str | None:
    """Why figures of the two sides must not be set against each other, or None.

    Another version of a package or of the source is what a comparison is for, and no obstacle.
    """
    before, after = (circumstances(side.good[0]) for side in (cell.base, cell.head))
    return differences(before, after)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """What two circumstances say of themselves that is not the same, or None."""
    differing = [
        f"{name}: {before[name]} and {after[name]}"
        for name in before
        if None not in (before[name], after[name]) and before[name] != after[name]
    ]
    return "; ".join(differing) or None


def circumstances(record: Record) -> dict[str, Any]:
    """What was not asked for, but must be equal; None where a record does not say."""
    cell, versions = record["cell"], record.get("versions") or {}
    environment, data = record.get("environment") or {}, record.get("data") or {}
    return {
        "machine": environment.get("machine_key"),
        "GPU": environment.get("gpu"),
        "data": data.get("sha256"),
        "suite version": versions.get("suite"),
        "task version": versions.get("task"),
        "backend": cell.get("backend"),
        "kernel": cell.get("kernel"),
    }


def layouts(records: Sequence[Record]) -> list[list[Record]]:
    """Records by process layout: those of one list count as one sample.

    Children of one fork server share its memory layout. Records that do not say where they come
    from are taken for children of a single server.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        layout = (record.get("environment") or {}).get("layout")
        groups.setdefault(str(layout), []).append(record)
    return list(groups.values())


def by_process(records: Sequence[Record]) -> dict[str, list[list[float]]]:
    """Samples of each metric by process; children of one fork server are one process."""
    found: dict[str, list[list[float]]] = {}
    for group in layouts(records):
        merged: dict[str, list[float]] = {}
        for record in group:
            for metric, samples in timed(record).items():
                merged.setdefault(metric, []).extend(samples)
        for metric, samples in merged.items():
            found.setdefault(metric, []).append(samples)
    return found
