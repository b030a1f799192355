"""What commands share: where records come from, and a word on those that cannot be read."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.console import make_console
from bench.errors import BadInput
from bench.store import Record, read_paths


def read(paths: Sequence[Path], *, brief: bool = False) -> tuple[list[Record], list[Path]]:
    """Records and artefact folders below `paths`; unreadable files are named on stderr.

    `brief`: without configurations, raw samples, sweeps and curves, from the stores' indices.
    Raises BadInput where a path is missing or no record can be read.
    """
    records, problems, roots = read_paths(paths, brief=brief)
    for problem in problems:
        complain(str(problem))
    if not records:
        names = ", ".join(f"'{path}'" for path in paths)
        raise BadInput(f"no readable record in {names}; run `python -m bench` first")
    return records, roots


def add_target(parser: argparse.ArgumentParser) -> None:
    """--target, as `bench.report.targets.parse` reads it."""
    parser.add_argument(
        "--target", action="append", default=[], metavar="[TASK=]VALUE",
        help="a score on validation that the time to is stated (default: that of the task's YAML)",
    )  # fmt: skip


def results_folder(path: Path) -> Path:
    """The folder that a PATH is or lies in: a store, also by its records folder or by a record."""
    folder = path.parent if path.is_file() else path
    return folder.parent if folder.name == "records" else folder


def complain(text: str) -> None:
    """A line on standard error."""
    make_console(stderr=True).print(text, soft_wrap=True)
