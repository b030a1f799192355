"""The indices of several stores as one table, and the short names of its columns."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow

from bench.store.arrays import BRIEF, MOMENT, STAMP, table_of, together
from bench.store.index import Index
from bench.store.parse import Problem, read_record
from bench.store.record import REQUIRED_CELL
from bench.store.store import StoreError, locate

PATH = "path"
# Every record has these, so that a store without any has their columns all the same.
ALWAYS = pyarrow.schema([
    ("schema", pyarrow.int64()), ("id", pyarrow.string()), ("created", MOMENT),
    ("status", pyarrow.string()), ("key", pyarrow.string()), ("cell.seed", pyarrow.int64()),
    *((f"cell.{name}", pyarrow.string()) for name in REQUIRED_CELL if name != "seed"),
])  # fmt: skip
# What people call the columns that they ask for most; the others go by their whole names.
SHORT = {
    "suite": "cell.suite", "family": "cell.family", "model": "cell.model", "size": "cell.size",
    "task": "cell.task", "kind": "cell.kind", "scenario": "cell.scenario", "seed": "cell.seed",
    "device": "cell.device", "dtype": "cell.dtype", "threads": "cell.threads",
    "compile": "cell.compile", "backend": "cell.backend", "kernel": "cell.kernel",
    "objective": "cell.objective", "match": "cell.match",
    "overrides": "cell.overrides", "commit": "code.commit", "source": "code.source_sha256",
    "data": "data.id", "machine": "environment.machine_key", "cpu": "environment.cpu",
    "gpu": "environment.gpu", "python": "environment.python", "valid": "validity.valid",
    "metric": "quality.metric", "quality": "quality.value", "lr": "quality.lr",
    "parameters": "parameters.total", "median_s": "timing.median_s",
    "peak_bytes": "memory.peak_bytes",
}  # fmt: skip


def read_table(paths: Iterable[Path]) -> tuple[pyarrow.Table, list[Problem]]:
    """One row for each id below `paths` (stores or single records); `path` is the record's file.

    StoreError where a path does not exist.
    """
    tables: list[pyarrow.Table] = []
    problems: list[Problem] = []
    for path in paths:
        if not path.exists():
            raise StoreError(f"'{path}' does not exist; give a results folder or a record")
        if path.is_file():
            table, bad = _single(path)
            tables.append(_located(table, path.parent))
            problems += bad
            continue
        for store in locate(path):
            table, bad = Index(store.root).table()
            tables.append(_located(table, store.records))
            problems += bad
    first, last = _located(table_of([]), Path()), ALWAYS.empty_table()
    return _once(together([first, *tables, last])), problems


def _single(path: Path) -> tuple[pyarrow.Table, list[Problem]]:
    try:
        return table_of([(path.name, 0, 0, read_record(path), b"")]), []
    except ValueError as error:
        return table_of([]), [Problem(path, str(error))]


def _located(table: pyarrow.Table, folder: Path) -> pyarrow.Table:
    """With the path of each record in place of its stamp, and without the brief."""
    files = table.column("file").to_pylist()
    column = pyarrow.array([str(folder / name) for name in files], pyarrow.string())
    kept = [n for n in table.column_names if n not in (*STAMP, BRIEF)]
    return table.select(kept).append_column(PATH, column)


def _once(table: pyarrow.Table) -> pyarrow.Table:
    """Each id once: the first of several."""
    if not table.num_rows:
        return table
    first: dict[str, int] = {}
    for place, identity in enumerate(table.column("id").to_pylist()):
        first.setdefault(identity, place)
    return table if len(first) == table.num_rows else table.take(list(first.values()))
