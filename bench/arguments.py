"""Arguments that commands on records share."""

import argparse
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # argparse has no public name for what `add_subparsers` returns
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subcommands = object

RESULTS = Path("results")


def parser_of(prog: str, description: str | None, commands: Iterable[Any]) -> ArgumentParser:
    """A parser whose first word is one of `commands`, each of which has an `add`."""
    top = ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        command.add(words)
    return top


def given_path(text: str) -> Path:
    """A path on the command line; an empty one is a variable that was not set, not this folder."""
    if not text:
        raise argparse.ArgumentTypeError("a path is empty; give a folder or a file")
    return Path(text)


def add_paths(parser: argparse.ArgumentParser) -> None:
    """PATH…: stores, folders with stores, or records."""
    parser.add_argument(
        "paths", nargs="*", type=given_path, default=[RESULTS], metavar="PATH",
        help=f"results folder, or a record (default: {RESULTS})",
    )  # fmt: skip
