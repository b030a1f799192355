"""`list [PATHS…]` and `where CONDITIONS…`: which records there are."""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow
from rich.cells import cell_len, set_cell_size

from bench.arguments import Subcommands, add_paths
from bench.errors import BadInput
from bench.records.conditions import parse
from bench.records.shared import add_format, add_in, add_where, matching, rows
from bench.store import plain

COLUMNS = {
    "created": "created", "status": "status", "model": "cell.model", "task": "cell.task",
    "scenario": "cell.scenario", "size": "cell.size", "seed": "cell.seed",
    "device": "cell.device", "dtype": "cell.dtype", "metric": "quality.metric",
    "quality": "quality.value", "id": "id",
}  # fmt: skip


def add(commands: Subcommands) -> None:
    """The arguments of both."""
    listing = commands.add_parser("list", help="list records")
    listing.set_defaults(run=run)
    add_paths(listing)
    add_where(listing)
    add_format(listing)
    where = commands.add_parser("where", help="print the files of the records that meet conditions")
    where.set_defaults(run=run_where)
    where.add_argument("conditions", nargs="+", metavar="CONDITION", help="e.g. task=text seed<3")
    add_in(where)


def run(options: argparse.Namespace) -> int:
    """List records as a table, or with all columns as JSON or CSV."""
    table = rows(options.paths, options.where)
    if options.format == "table":
        shown = {head: name for head, name in COLUMNS.items() if name in table.column_names}
        print_rows(list(shown), table.select(list(shown.values())).to_pylist())
        print(f"{table.num_rows} records")
    else:
        print_all(table, options.format)
    return 0


def run_where(options: argparse.Namespace) -> int:
    """Print one path a line."""
    conditions = parse(options.conditions)
    if not conditions:
        raise BadInput("where needs a condition, such as task=text.")
    for path in matching(options.paths, conditions).column("path").to_pylist():
        print(path)
    return 0


def print_all(table: pyarrow.Table, form: str) -> None:
    """Every column, as JSON (a list of objects) or CSV."""
    values = [{name: _plain(v) for name, v in row.items()} for row in table.to_pylist()]
    if form == "json":
        print(json.dumps(plain(values, "records"), ensure_ascii=False))
        return
    writer = csv.DictWriter(sys.stdout, table.column_names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(values)


def print_rows(heads: Sequence[str], found: Iterable[Mapping[str, Any]]) -> None:
    """Columns as wide as they need to be: nothing is cut off."""
    lines = [list(heads), *([_short(value) for value in row.values()] for row in found)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(set_cell_size(t, w) for t, w in zip(line, widths, strict=True)).rstrip())


def _short(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if hasattr(value, "isoformat"):
        return str(value.isoformat(sep=" ", timespec="seconds"))[:19]
    return str(value)


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
