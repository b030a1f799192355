"""What the commands share: further arguments, the rows that were asked for, complaints."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow

from bench.arguments import RESULTS, given_path
from bench.errors import BadInput
from bench.records.conditions import Condition, parse, select
from bench.store import Problem, Store, locate
from bench.store.tables import read_table

FORMATS = ("table", "json", "csv")


def add_in(parser: argparse.ArgumentParser) -> None:
    """--in PATH…, where the words themselves are something else."""
    parser.add_argument(
        "--in", dest="paths", nargs="+", type=given_path, default=[RESULTS], metavar="PATH",
        help=f"results folders, or records (default: {RESULTS})",
    )  # fmt: skip


def add_where(parser: argparse.ArgumentParser) -> None:
    """--where CONDITIONS."""
    parser.add_argument(
        "--where", action="append", default=[], metavar="CONDITIONS",
        help="only records that meet all of them, e.g. 'task=text status=ok quality<2'",
    )  # fmt: skip


def add_format(parser: argparse.ArgumentParser) -> None:
    """--format table|json|csv."""
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")


def rows(paths: Sequence[Path], where: Iterable[str]) -> pyarrow.Table:
    """The index's rows below `paths` that meet the conditions; unreadable files are named."""
    return matching(paths, parse(where))


def matching(paths: Sequence[Path], conditions: Sequence[Condition]) -> pyarrow.Table:
    """As `rows`, with conditions that were parsed before."""
    table, problems = read_table(paths)
    complain(problems)
    return select(table, conditions)


def complain(problems: Iterable[Problem]) -> None:
    """One line a problem, on stderr."""
    for problem in problems:
        print(problem, file=sys.stderr)


def stores_at(path: Path) -> list[Store]:
    """The stores at or below `path`; BadInput where there is none."""
    if not path.exists():
        raise BadInput(f"'{path}' does not exist; give a results folder.")
    found = locate(path) if path.is_dir() else []
    if not found:
        raise BadInput(f"'{path}' has no records; give a results folder.")
    return found


def one_store(path: Path) -> Store:
    """The store at `path` itself: what removes records does not go looking for more."""
    found = stores_at(path)
    if found[0].root not in (path, path.parent):
        names = ", ".join(str(store.root) for store in found)
        raise BadInput(f"'{path}' has no records of its own; give one of: {names}.")
    return found[0]


def size(count: int) -> str:
    """Bytes as people read them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
