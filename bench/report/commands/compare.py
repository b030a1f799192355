"""`compare BASE HEAD`: what changed between two sets of records, and what cannot be told.

Cells are matched by what was asked. Times are judged over processes (see
bench/report/compare/statistics.py), exact figures exactly, scores by paired seeds. To measure two
revisions on one machine in turns, which says far more, use `python -m bench.ab`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from bench.arguments import Subcommands, given_path
from bench.console import make_console
from bench.errors import BadInput
from bench.report.commands.reading import read, results_folder
from bench.report.compare.compare import compare
from bench.report.compare.floors import APART, NOISE, floors_in
from bench.report.compare.outputs import EPILOG, add_outputs, check_outputs, emit
from bench.report.compare.statistics import WITHIN
from bench.report.compare.verdict import PINNED, Finding, gravest_first
from bench.store import Record


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "compare",
        help="base against head, with a verdict for each metric of each cell",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("base", type=given_path, metavar="BASE", help="results folder, or a record")
    parser.add_argument("head", type=given_path, metavar="HEAD", help="results folder, or a record")
    parser.add_argument(
        "--pinned", type=given_path, metavar="PATH",
        help="records of a release, compared too: many small steps below the floor add up",
    )  # fmt: skip
    parser.add_argument(
        "--within", type=float, default=WITHIN, metavar="SHARE",
        help=f"an interval inside this is called same (default: {WITHIN})",
    )  # fmt: skip
    parser.add_argument(
        "--noise", type=given_path, metavar="FILE",
        help=f"floors that `python -m bench.selftest` found (default: {NOISE} beside BASE)",
    )  # fmt: skip
    add_outputs(parser)


def run(options: argparse.Namespace) -> int:
    """Compare and write; returns the exit code of the gravest verdict."""
    check_outputs(options)
    if not 0 < options.within < 1:
        raise BadInput(f"--within={options.within:g} is no share; allowed: above 0 and below 1")
    head, _ = read([options.head])
    found = _against(options.base, head, options)
    if options.pinned:
        found += [
            replace(
                finding, against=PINNED,
                reason=f"against the pinned {options.pinned}: {finding.reason}",
            )
            for finding in _against(options.pinned, head, options)
        ]  # fmt: skip
    return emit(gravest_first(found), options, make_console())


def _against(path: Path, head: list[Record], options: argparse.Namespace) -> list[Finding]:
    base, _ = read([path])
    noise = options.noise or results_folder(path) / NOISE
    floors = floors_in(noise, APART, given=options.noise is not None)
    return compare(base, head, floors=floors, within=options.within)
