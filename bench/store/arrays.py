"""Columns of the index as Arrow arrays, and tables of different columns put together."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow

from bench.store.brief import columns, text
from bench.store.record import Record

# Where a row comes from: the record's file, its size and its time of change. Then the brief.
STAMP = ("file", "bytes", "mtime_ns")
BRIEF = "brief"
OWN = {
    "file": pyarrow.string(), "bytes": pyarrow.int64(), "mtime_ns": pyarrow.int64(),
    BRIEF: pyarrow.string(),
}  # fmt: skip
MOMENT = pyarrow.timestamp("us", "UTC")
INTEGERS = (-(2**63), 2**63 - 1)

Row = tuple[str, int, int, Record]  # STAMP and the brief


def table_of(rows: Sequence[Row]) -> pyarrow.Table:
    """Rows of the index, one a record, with a column for each scalar that any of them holds."""
    found: dict[str, dict[int, Any]] = {}
    for place, row in enumerate(rows):
        for name, value in columns(row[3]):
            if value is not None and name not in OWN:
                found.setdefault(name, {})[place] = value
    files, sizes, times, briefs = zip(*rows, strict=True) if rows else ([], [], [], [])
    texts = [json.dumps(b, ensure_ascii=False, separators=(",", ":")) for b in briefs]
    own = zip(OWN.items(), (files, sizes, times, texts), strict=True)
    arrays = {name: pyarrow.array(values, kind) for (name, kind), values in own}
    for name, values in found.items():
        arrays[name] = _array(values, len(rows))
    return pyarrow.table(arrays)


def _array(values: Mapping[int, Any], length: int) -> pyarrow.Array:
    """One type a column: text where values agree on none."""
    kinds = set(map(type, values.values()))
    filled = list(map(values.get, range(length)))
    if kinds <= {int, float} and len(kinds) == 2:
        return pyarrow.array([None if v is None else float(v) for v in filled], pyarrow.float64())
    if kinds == {int} and not _fits(values.values()):
        return pyarrow.array([None if v is None else float(v) for v in filled], pyarrow.float64())
    if len(kinds) == 1 and kinds <= {int, float, bool, str}:
        return pyarrow.array(filled)
    if len(kinds) == 1 and "datetime" in {kind.__name__ for kind in kinds}:
        return pyarrow.array(filled, MOMENT)
    return pyarrow.array([text(v) for v in filled], pyarrow.string())


def _fits(values: Any) -> bool:
    return min(values) >= INTEGERS[0] and max(values) <= INTEGERS[1]


def together(tables: Sequence[pyarrow.Table]) -> pyarrow.Table:
    """One table below another; a column that is missing in one is null there."""
    names = list(dict.fromkeys(name for table in tables for name in table.column_names))
    kinds = {name: _common(tables, name) for name in names}
    schema = pyarrow.schema(list(kinds.items()))
    cast = [
        pyarrow.table(
            [_cast(table, name, kind) for name, kind in kinds.items()], schema=schema
        )
        for table in tables
    ]  # fmt: skip
    return pyarrow.concat_tables(cast)


def _common(tables: Sequence[pyarrow.Table], name: str) -> pyarrow.DataType:
    kinds = {t.schema.field(name).type for t in tables if name in t.column_names}
    if len(kinds) == 1:
        return kinds.pop()
    return pyarrow.float64() if kinds == {pyarrow.int64(), pyarrow.float64()} else pyarrow.string()


def _cast(table: pyarrow.Table, name: str, kind: pyarrow.DataType) -> pyarrow.ChunkedArray:
    if name not in table.column_names:
        return pyarrow.chunked_array([pyarrow.nulls(table.num_rows, kind)])
    column = table.column(name)
    if column.type == kind:
        return column
    if kind == pyarrow.float64():
        return column.cast(kind, safe=False)
    texts = [text(value) for value in column.to_pylist()]
    return pyarrow.chunked_array([pyarrow.array(texts, kind)])
