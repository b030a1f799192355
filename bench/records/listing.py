"""`list [PATHS…]` and `where CONDITIONS…`: which records there are."""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.errors import BadInput
from bench.records.conditions import parse
from bench.records.shared import (
    Subcommands,
    add_format,
    add_in,
    add_paths,
    add_where,
    matching,
    rows,
)  # fmt: skip

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
        print(json.dumps(values, ensure_ascii=False))
        return
    writer = csv.DictWriter(sys.stdout, table.column_names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(values)


def print_rows(heads: Sequence[str], found: Iterable[Mapping[str, Any]]) -> None:
    """A table that is never cut off: it is as wide as it needs to be."""
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head in heads:
        drawn.add_column(Text(head), no_wrap=True)
    for row in found:
        drawn.add_row(*(Text(_short(value)) for value in row.values()))
    console = Console(highlight=False)
    console.width = max(console.width, console.measure(drawn).maximum, 20)
    console.width = max(console.width, Console(width=10_000).measure(drawn).maximum)
    console.print(drawn)


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
