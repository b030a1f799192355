"""Which records stand side by side, and which are older than others of the same cell."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.store.record import Record, created

# What is given inside the task without changing what is measured: where its data lies (other data
# has another hash), and the score that the time to is stated.
ASIDE = ("task.path=", "task.hub", "task.corpus=", "task.target=")
ROWLESS = ("baselines", "tune")  # the former has rows of its own, the latter prepares a run


@dataclass(frozen=True)
class BlockKey:
    """What must be equal for two records to be comparable; None where a record does not say."""

    task: str
    kind: str
    suite: str | None
    suite_version: int | None
    task_version: int | None
    data_id: str | None
    data_sha256: str | None
    machine: str | None
    device: str | None
    dtype: str | None
    threads: int | None
    changes: str = ""  # what was given inside the task, but for where its data lies
    match: str = ""  # where it is not the size's parameters

    def parts(self) -> tuple[str | int | None, ...]:
        """All that must be equal."""
        return tuple(vars(self).values())


@dataclass
class Variant:
    """A row to be: one model at one size, objective, backend and overrides, records by scenario."""

    family: str
    model: str
    size: str
    backend: str
    compile: str
    overrides: tuple[str, ...] = ()
    kernel: str = ""
    objective: str = ""  # where it is not the family's own
    scenarios: dict[str, list[Record]] = field(default_factory=dict)

    def records(self) -> list[Record]:
        """All records of the row."""
        return [record for found in self.scenarios.values() for record in found]


@dataclass
class Selection:
    """The records of a block: current rows, rows of older records, plain baselines."""

    key: BlockKey
    current: list[Variant]
    stale: list[Variant]
    repeats: list[Variant]
    baselines: list[Record]
    newest: Record
    records: list[Record]


def block_key(record: Record) -> BlockKey:
    """What a record says of its comparability."""
    cell, versions = record["cell"], record.get("versions") or {}
    data, environment = record.get("data") or {}, record.get("environment") or {}
    return BlockKey(
        task=cell["task"],
        kind=cell["kind"],
        suite=cell.get("suite"),
        suite_version=versions.get("suite"),
        task_version=versions.get("task"),
        data_id=data.get("id"),
        data_sha256=data.get("sha256"),
        machine=environment.get("machine_key"),
        device=cell.get("device"),
        dtype=cell.get("dtype"),
        threads=cell.get("threads"),
        changes=" ".join(text for text in overrides(record) if text.startswith("task.")),
        match=cell.get("match") or "",
    )


def overrides(record: Record) -> tuple[str, ...]:
    """What was given inside groups; other data has another hash, so its place says nothing."""
    given = record["cell"].get("overrides") or []
    return tuple(sorted(text for text in given if not text.startswith(ASIDE)))


def code_key(record: Record) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Source and packages that a record was made with."""
    packages = (record.get("environment") or {}).get("packages") or {}
    source = (record.get("code") or {}).get("source_sha256") or ""
    return source, tuple(sorted(packages.items()))


def select(records: Sequence[Record]) -> list[Selection]:
    """Blocks in order of task kind, task and age; the newest block of a task stands first."""
    blocks: dict[BlockKey, list[Record]] = {}
    unsure: list[Record] = []
    for record in _newest_first(records):
        key = block_key(record)
        if None in key.parts():
            unsure.append(record)  # a cell that failed early does not know all of these
        else:
            blocks.setdefault(key, []).append(record)
    for record in unsure:
        key = block_key(record)
        fitting = [other for other in blocks if _fits(key, other)]
        blocks.setdefault(fitting[0] if fitting else key, []).append(record)
    order = {"language": 0, "classify": 1, "generate": 2}
    keys = sorted(blocks, key=lambda key: (order.get(key.kind, 3), key.task))
    return [_divide(key, _newest_first(blocks[key])) for key in keys]


def _newest_first(records: Sequence[Record]) -> list[Record]:
    return sorted(records, key=lambda r: (created(r), r["id"]), reverse=True)


def _fits(key: BlockKey, other: BlockKey) -> bool:
    return all(a is None or a == b for a, b in zip(key.parts(), other.parts(), strict=True))


def _divide(key: BlockKey, records: list[Record]) -> Selection:
    seen: dict[tuple[Any, ...], Record] = {}
    current: list[Record] = []
    stale: list[Record] = []
    repeats: list[Record] = []
    for record in records:
        newer = seen.setdefault(_cell_key(record), record)
        if newer is record:
            current.append(record)
        elif newer["key"] == record["key"]:
            repeats.append(record)
        else:
            stale.append(record)
    baselines = [r for r in current if r["cell"]["scenario"] == "baselines"]
    return Selection(
        key=key,
        current=_rows(current),
        stale=_rows(stale),
        repeats=_rows(repeats),
        baselines=baselines[:1],
        newest=records[0],
        records=records,
    )


def _cell_key(record: Record) -> tuple[Any, ...]:
    cell = record["cell"]
    names = ("model", "objective", "size", "scenario", "seed", "backend", "kernel", "compile")
    return (*(str(cell.get(name)) for name in names), overrides(record))


def _rows(records: list[Record]) -> list[Variant]:
    """Records to rows: a row takes one record per scenario and seed, all of one source."""
    rows: dict[tuple[Any, ...], list[Variant]] = {}
    for record in records:
        if record["cell"]["scenario"] in ROWLESS:
            continue
        made = variant_of(record)
        names = (
            made.family, made.model, made.objective, made.size, made.backend, made.compile,
            made.overrides,
        )  # fmt: skip
        variants = rows.setdefault(names, [])
        variant = next((v for v in variants if not _holds(v, record)), None)
        if variant is None:
            variant = made
            variants.append(variant)
        variant.scenarios.setdefault(record["cell"]["scenario"], []).append(record)
    for variants in rows.values():
        if len(variants) > 1:
            for variant in variants:
                kernels = {str(r["cell"].get("kernel") or "") for r in variant.records()}
                variant.kernel = "/".join(sorted(kernels - {""}))
    return [variant for variants in rows.values() for variant in variants]


def variant_of(record: Record) -> Variant:
    """The row that a record belongs to, as yet without records."""
    cell = record["cell"]
    compiled = str(cell.get("compile") or "")
    return Variant(
        family=cell["family"], model=cell["model"], size=str(cell.get("size") or ""),
        backend=str(cell.get("backend") or ""), compile="" if compiled == "False" else compiled,
        overrides=tuple(text for text in overrides(record) if not text.startswith("task.")),
        objective=str(cell.get("objective") or ""),
    )  # fmt: skip


def _holds(variant: Variant, record: Record) -> bool:
    """Whether the row is taken: by the same scenario and seed, or by another kernel's record."""
    same = variant.scenarios.get(record["cell"]["scenario"], [])
    kernel = record["cell"].get("kernel")
    return any(
        r["cell"]["seed"] == record["cell"]["seed"]
        or (kernel and r["cell"].get("kernel") not in (None, "", kernel))
        for r in same
    )
