"""`python -m bench.report table [PATHS…]`: the table again, from records alone.

Exit code 0: a table was printed, also where some files could not be read (they are named on
stderr). Exit code 2: a path is missing, nothing in it is readable, or the output cannot be written.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.report.files import write_files
from bench.report.table import build
from bench.report.terminal import show
from bench.store import StoreError, read_paths


def parser() -> argparse.ArgumentParser:
    """The arguments of `python -m bench.report`."""
    top = argparse.ArgumentParser(
        prog="python -m bench.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True)
    table = commands.add_parser(
        "table", help="print the table and write it as CSV, Parquet, Markdown and LaTeX"
    )
    table.add_argument(
        "paths",
        nargs="*",
        type=Path,
        default=[Path("results")],
        metavar="PATH",
        help="results folder, or a record (default: results)",
    )
    table.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where table.* are written (default: the first results folder)",
    )
    table.add_argument(
        "--stale",
        action="store_true",
        help="also the records that newer source or configuration replaced",
    )
    table.add_argument(
        "--all",
        action="store_true",
        dest="everything",
        help="also those, and earlier ones of cells that were run again",
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args(arguments)
    paths: list[Path] = options.paths
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        records, problems, roots = read_paths(paths)
        for problem in problems:
            errors.print(str(problem))
        if not records:
            names = ", ".join(f"'{path}'" for path in paths)
            raise StoreError(f"no readable record in {names}; run `python -m bench` first")
        table = build(records, roots, stale=options.stale, everything=options.everything)
        console = Console(highlight=False)
        show(table, console)
        output = options.output or _folder(paths[0])
        written = write_files(table, output)
        console.print()
        console.print("written: " + ", ".join(str(path) for path in written), soft_wrap=True)
    except (StoreError, OSError) as error:
        errors.print(f"error: {error}")
        return 2
    return 0


def _folder(path: Path) -> Path:
    folder = path.parent if path.is_file() else path
    return folder.parent if folder.name == "records" else folder


if __name__ == "__main__":
    sys.exit(main())
