"""Records to the table that people see first: one block a task, families as rows."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.report.block import BlockBuilder
from bench.report.layout import Table
from bench.report.select import select
from bench.report.targets import NO_TARGETS, Targets
from bench.store.record import Record

# Scenarios that have a command of their own in place of columns here.
OWN_SHEETS = ("context", "frontier", "ceilings")
Roots = Sequence[Path] | Path | str | None


def build(
    records: Sequence[Record], artefact_root: Roots = None, *, stale: bool = False,
    everything: bool = False, targets: Targets = NO_TARGETS,
) -> Table:  # fmt: skip
    """The table of `records`; `artefact_root` holds their folders (`results/artefacts`).

    `stale` adds the records that newer source, packages or configuration replaced, `everything`
    also the earlier ones of cells that were simply run again. `targets` are scores by task that the
    time to is stated, in the place of those in the records.
    """
    if artefact_root is None:
        roots: list[Path] = []
    elif isinstance(artefact_root, str | Path):
        roots = [Path(artefact_root)]
    else:
        roots = [Path(root) for root in artefact_root]
    shown = [r for r in records if r["cell"]["scenario"] not in OWN_SHEETS]
    blocks = [
        BlockBuilder(s, roots, targets, stale or everything, everything).build()
        for s in select(shown)
    ]
    contexts = {block.context for block in blocks}
    if len(contexts) == 1:
        shared = contexts.pop()
        return Table(tuple(replace(block, context="") for block in blocks), shared)
    return Table(tuple(blocks))


def to_json(table: Table) -> dict[str, Any]:
    """The table in JSON's types, for `output=json`."""
    return asdict(table)
