"""Raw numbers of a table in tidy form: one line per row of the table and measure."""

import pandas

from bench.report.layout import Block, Cell, Row, Table

TEXT = [
    "task", "kind", "suite", "data_id", "data_sha256", "machine", "device", "dtype",
    "changes", "row", "family", "model", "size", "backend", "kernel", "compile", "overrides",
    "objective", "under", "column", "metric", "label", "unit", "better", "over", "status", "reason",
    "records",
]  # fmt: skip
INTEGERS = ["block", "suite_version", "task_version", "threads", "n"]
FLOATS = ["value", "low", "high"]
FLAGS = ["bound", "best", "valid", "stale", "tuned"]
ORDER = [
    "block", "task", "kind", "suite", "suite_version", "task_version", "data_id", "data_sha256",
    "machine", "device", "dtype", "threads", "changes", "row", "family", "model", "size", "backend",
    "kernel", "compile", "overrides", "objective", "under", "tuned", "column", "metric", "value",
    "low", "high", "over", "n", "unit", "better", "bound", "best", "label", "status", "reason",
    "valid", "stale", "records",
]  # fmt: skip


def to_frame(table: Table) -> pandas.DataFrame:
    """One line per measure, and one for each failure with its reason."""
    lines = [
        line
        for number, block in enumerate(table.blocks)
        for row in block.rows
        for column, cell in zip(block.columns, row.cells, strict=True)
        for line in _lines(number, block, row, column.key, cell)
    ]
    present = [{n: None if v == "" else v for n, v in line.items()} for line in lines]
    frame = pandas.DataFrame(present, columns=ORDER)
    types: dict[str, str] = dict.fromkeys(TEXT, "string")
    types |= dict.fromkeys(INTEGERS, "Int64") | dict.fromkeys(FLOATS, "float64")
    types |= dict.fromkeys(FLAGS, "boolean")
    return frame.astype(types)


def _lines(number: int, block: Block, row: Row, column: str, cell: Cell) -> list[dict[str, object]]:
    common: dict[str, object] = {"block": number, **block.identity}
    common |= {name: row.identity.get(name) for name in ORDER if name in row.identity}
    common |= {
        "row": row.kind, "column": column, "status": cell.status, "reason": cell.reason or None,
        "valid": cell.valid, "stale": cell.stale, "records": " ".join(cell.records) or None,
    }  # fmt: skip
    lines = [
        {**common, **vars(measure), "best": cell.bold and place == 0}
        for place, measure in enumerate(cell.measures)
    ]
    if not lines and cell.status in ("failed", "unsupported"):
        lines = [{**common, "metric": column}]
    return lines
