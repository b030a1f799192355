"""What commands share: where records come from, and a word on those that cannot be read."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.store import Record, StoreError, read_paths

if TYPE_CHECKING:  # argparse has no public name for what `add_subparsers` returns
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subcommands = object


def add_paths(parser: argparse.ArgumentParser) -> None:
    """The positional argument PATH… of a command that reads records."""
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        default=[Path("results")],
        metavar="PATH",
        help="results folder, or a record (default: results)",
    )


def read(paths: Sequence[Path], *, brief: bool = False) -> tuple[list[Record], list[Path]]:
    """Records and artefact folders below `paths`; unreadable files are named on stderr.

    `brief`: without configurations, raw samples, sweeps and curves, from the stores' indices.
    Raises StoreError where a path is missing or no record can be read.
    """
    records, problems, roots = read_paths(paths, brief=brief)
    for problem in problems:
        errors().print(str(problem))
    if not records:
        names = ", ".join(f"'{path}'" for path in paths)
        raise StoreError(f"no readable record in {names}; run `python -m bench` first")
    return records, roots


def results_folder(path: Path) -> Path:
    """The folder that a PATH is or lies in: a store, also by its records folder or by a record."""
    folder = path.parent if path.is_file() else path
    return folder.parent if folder.name == "records" else folder


def errors() -> Console:
    """Where complaints go."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
