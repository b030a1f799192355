"""Columns of the index as Arrow arrays, and tables of different columns put together."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow

from bench.store.brief import Columns, collect, text
from bench.store.record import Record, created

# Where a row comes from: the record's file, its size and its time of change. Then the brief.
STAMP = ("file", "bytes", "mtime_ns")
BRIEF = "brief"
OWN = {
    "file": pyarrow.string(), "bytes": pyarrow.int64(), "mtime_ns": pyarrow.int64(),
    BRIEF: pyarrow.string(),
}  # fmt: skip
MOMENT = pyarrow.timestamp("us", "UTC")
INTEGERS = (-(2**63), 2**63 - 1)

Row = tuple[str, int, int, Record, bytes]  # STAMP, the brief, its text


def table_of(rows: Sequence[Row]) -> pyarrow.Table:
    """Rows of the index, one a record, with a column for each scalar that any of them holds."""
    found: Columns = {}
    for place, row in enumerate(rows):
        collect(row[3], place, found)
    files, sizes, times, briefs, texts = zip(*rows, strict=True) if rows else ([],) * 5
    own = zip(OWN.items(), (files, sizes, times, texts), strict=True)
    arrays = {name: pyarrow.array(values, kind) for (name, kind), values in own}
    scalars: dict[str, dict[int, Any]] = {}
    for prefix, columns in found.items():
        for name, values in columns.items():  # a name with a dot in it may be that of another part
            scalars.setdefault(_sound(prefix + name), {}).update(values)
    arrays |= {n: _array(values, len(rows)) for n, values in scalars.items() if n not in OWN}
    if "created" in arrays:
        moments = [created(record) for record in briefs]
        arrays["created"] = pyarrow.array(moments, MOMENT)
    return pyarrow.table(arrays)


def _array(values: Mapping[int, Any], length: int) -> pyarrow.Array:
    """One type a column: text where values agree on none."""
    kinds = set(map(type, values.values()))
    filled = list(map(values.get, range(length)))
    if kinds <= {int, float} and len(kinds) == 2:
        return pyarrow.array([None if v is None else float(v) for v in filled], pyarrow.float64())
    if kinds == {int} and not _fits(values.values()):
        return pyarrow.array([None if v is None else float(v) for v in filled], pyarrow.float64())
    if len(kinds) == 1 and kinds <= {int, float, bool}:
        return pyarrow.array(filled)
    texts = filled if kinds == {str} else [text(v) for v in filled]
    try:
        return pyarrow.array(texts, pyarrow.string())
    except UnicodeEncodeError:
        return pyarrow.array([None if t is None else _sound(t) for t in texts], pyarrow.string())


def _sound(name: str) -> str:
    """Without halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return name.encode("utf-8", "replace").decode()


def _fits(values: Any) -> bool:
    return min(values) >= INTEGERS[0] and max(values) <= INTEGERS[1]


def together(tables: Sequence[pyarrow.Table]) -> pyarrow.Table:
    """One table below another; a column that is missing in one is null there."""
    found: dict[str, set[pyarrow.DataType]] = {}
    for table in tables:
        for column in table.schema:
            found.setdefault(column.name, set()).add(column.type)
    kinds = {name: _common(types) for name, types in found.items()}
    schema = pyarrow.schema(list(kinds.items()))
    same = [table if table.schema.equals(schema) else _cast(table, schema) for table in tables]
    return pyarrow.concat_tables(same)


def _common(kinds: set[pyarrow.DataType]) -> pyarrow.DataType:
    if len(kinds) == 1:
        return next(iter(kinds))
    return pyarrow.float64() if kinds == {pyarrow.int64(), pyarrow.float64()} else pyarrow.string()


def _cast(table: pyarrow.Table, schema: pyarrow.Schema) -> pyarrow.Table:
    present = set(table.column_names)
    columns = [
        _column(table.column(field.name), field.type)
        if field.name in present
        else pyarrow.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pyarrow.table(columns, schema=schema)


def _column(column: pyarrow.ChunkedArray, kind: pyarrow.DataType) -> pyarrow.ChunkedArray:
    if column.type == kind:
        return column
    if kind == pyarrow.float64():
        return column.cast(kind, safe=False)
    texts = [text(value) for value in column.to_pylist()]
    return pyarrow.chunked_array([pyarrow.array(texts, kind)])
