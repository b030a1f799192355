"""Arguments that commands on records share."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # argparse has no public name for what `add_subparsers` returns
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subcommands = object

RESULTS = Path("results")


def add_paths(parser: argparse.ArgumentParser) -> None:
    """PATH…: stores, folders with stores, or records."""
    parser.add_argument(
        "paths", nargs="*", type=Path, default=[RESULTS], metavar="PATH",
        help=f"results folder, or a record (default: {RESULTS})",
    )  # fmt: skip
