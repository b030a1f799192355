"""`plot [PATHS…]`: figures for slides, from records alone: 16:9, as SVG, PDF and PNG.

Exit code 0: something was drawn. 2: nothing was, or a path or an option is wrong.
"""

import argparse
import importlib
from typing import cast

from bench.arguments import Subcommands, add_paths, given_path
from bench.console import make_console
from bench.errors import BadInput
from bench.report.commands.reading import add_target, complain, read, results_folder
from bench.report.plots.figure import Kind, Request
from bench.report.plots.style import FORMATS
from bench.report.targets import parse

KINDS = ("pareto", "curves", "target", "roofline", "context", "history")


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "plot", help="draw figures for slides", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    add_paths(parser)
    parser.add_argument(
        "--kind", default="all", metavar="KIND,…", help=f"all, or of {', '.join(KINDS)}"
    )
    parser.add_argument(
        "--format", default=",".join(FORMATS), metavar="FORMAT,…",
        help=f"of {', '.join(FORMATS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--output",
        type=given_path,
        metavar="DIR",
        help="default: plots in the first results folder",
    )
    add_target(parser)


def run(options: argparse.Namespace) -> int:
    """Draw; returns the exit code."""
    kinds = list(KINDS) if options.kind == "all" else _chosen("kind", options.kind, KINDS)
    formats = _chosen("format", options.format, FORMATS)
    records, roots = read(options.paths)
    results = results_folder(options.paths[0])
    folder = options.output or results / "plots"
    request = Request(records, roots, results, folder, formats, parse(options.target))
    written = []
    for name in kinds:
        kind = cast(Kind, importlib.import_module(f"bench.report.plots.{name}"))
        paths = kind.draw(request)
        written += paths
        if not paths:
            complain(f"{name}: not drawn, no record has {kind.NEEDS}")
    if not written:
        raise BadInput("nothing could be drawn from these records")
    make_console().print("written: " + ", ".join(str(path) for path in written), soft_wrap=True)
    return 0


def _chosen(key: str, text: str, allowed: tuple[str, ...]) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words or [text]:
        if word not in allowed:
            raise BadInput(f"--{key}={word} is not known; allowed: {', '.join(allowed)}")
    return words
