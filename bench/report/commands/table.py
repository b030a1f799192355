"""`table [PATHS…]`: the table again, from records alone, and as CSV, Parquet, Markdown, LaTeX."""

import argparse
import gc

from bench.arguments import Subcommands, add_paths, given_path
from bench.console import make_console
from bench.report.commands.reading import add_target, read, results_folder
from bench.report.files import write_files
from bench.report.table import build
from bench.report.targets import parse
from bench.report.terminal import show


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "table", help="print the table and write it as CSV, Parquet, Markdown and LaTeX"
    )
    parser.set_defaults(run=run)
    add_paths(parser)
    parser.add_argument(
        "--output",
        type=given_path,
        metavar="DIR",
        help="where table.* are written (default: the first results folder)",
    )
    parser.add_argument(
        "--stale",
        action="store_true",
        help="also the records that newer source or configuration replaced",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        dest="everything",
        help="also those, and earlier ones of cells that were run again",
    )
    add_target(parser)


def run(options: argparse.Namespace) -> int:
    """Print the table and write its files; returns the exit code."""
    records, roots = read(options.paths, brief=True)
    gc.freeze()  # records stay until the end: the cycle collector need not go through them again
    table = build(
        records, roots, stale=options.stale, everything=options.everything,
        targets=parse(options.target),
    )  # fmt: skip
    console = make_console()
    show(table, console)
    written = write_files(table, options.output or results_folder(options.paths[0]))
    console.print()
    console.print("written: " + ", ".join(str(path) for path in written), soft_wrap=True)
    return 0
