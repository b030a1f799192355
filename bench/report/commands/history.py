"""`history [PATHS…]`: every metric over the commits of a repository, its changes, and a figure.

Records of one commit are repetitions. Commits stand in the order of the first-parent history of
--repo, or of their times where it holds none of them. With --pinned the level at the end is held
against that of a release, so that many small steps are seen; changes up to it count as accepted.
What the verdicts mean, and how changes are found: docs/history.md.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.arguments import Subcommands, add_paths, given_path
from bench.console import make_console
from bench.errors import BadInput
from bench.report.commands.reading import read, results_folder
from bench.report.compare.cells import newest
from bench.report.compare.floors import APART, NOISE, floors_in
from bench.report.compare.outputs import EPILOG, View, add_outputs, check_outputs, emit
from bench.report.history.findings import findings
from bench.report.history.judge import Pin, judge_all
from bench.report.history.series import build, invalid
from bench.report.history.sheets import document, sheets
from bench.report.history.timeline import SHORT, Line, Timeline, first_parents, resolve
from bench.report.plots.history import draw_series
from bench.report.plots.style import FORMATS
from bench.store import Record

INVALID = "Left out: the times of {} records that call them invalid (python -m bench says why)."
QUIET = ("same", "new", "ambiguous")


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "history", help="every metric over commits, with its changes", description=__doc__,
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    add_paths(parser)
    parser.add_argument(
        "--repo", type=given_path, metavar="PATH", help="repository (default: here)"
    )
    parser.add_argument(
        "--pinned", metavar="REV|PATH",
        help="a release: a revision that records are of, or a folder of records",
    )  # fmt: skip
    parser.add_argument(
        "--noise", type=given_path, metavar="FILE",
        help=f"floors that `python -m bench.selftest` found (default: {NOISE} beside PATH)",
    )  # fmt: skip
    parser.add_argument(
        "--plots", type=given_path, metavar="DIR",
        help="folder of the figures (default: plots in the first results folder)",
    )  # fmt: skip
    parser.add_argument("--no-plots", action="store_true", help="draw nothing")
    add_outputs(parser)


def run(options: argparse.Namespace) -> int:
    """Judge, draw and write; returns the exit code of the gravest verdict."""
    check_outputs(options)
    repo = options.repo or Path()
    line = first_parents(repo, given=options.repo is not None)
    records, _ = read(options.paths)
    timeline = Timeline(records, line, f"'{repo}'")
    series = build(records, timeline)
    if not series:
        raise BadInput("no record of these has a metric to follow over commits")
    pin = _pin(options.pinned, repo, line, records, timeline) if options.pinned else None
    folder = results_folder(options.paths[0])
    noise = options.noise or folder / NOISE
    floors = floors_in(noise, APART, given=options.noise is not None)
    judged = judge_all(series, pin, floors=floors, newest=timeline.newest)
    console = make_console()
    left_out = sum(invalid(record) and record["status"] == "ok" for record in records)
    notes = [*timeline.notes, *([INVALID.format(left_out)] if left_out else [])]
    view = View(sheets(judged, pin, notes), QUIET, document(judged))
    code = emit(findings(judged, records, timeline, pin), options, console, view=view)
    if not options.no_plots:
        plots = options.plots or folder / "plots"
        paths = draw_series(judged, pin, plots, FORMATS)
        said = (
            f"{len(paths)} files in {plots}" if paths else "no figure, for one commit is no history"
        )
        console.print(f"written: {said}", soft_wrap=True)
    return code


def _pin(
    text: str, repo: Path, line: dict[str, Line], records: Sequence[Record], timeline: Timeline
) -> Pin:
    """The pinned release by its name; BadInput where nothing is known of it."""
    if Path(text).exists():
        return _pinned_folder(Path(text), line, timeline)
    commit = resolve(repo, text)
    known = {}
    for record in records:
        if (place := timeline.commit(record)) is not None:
            known[place.key] = place
    fitting = [p for key, p in known.items() if key == commit or text in (key, p.label)]
    # A commit's name also begins that of uncommitted changes upon it, so whole names go first.
    fitting = fitting or [place for key, place in known.items() if key.startswith(text)]
    if len(fitting) == 1:
        return Pin(text, fitting[0])
    labels = ", ".join(sorted({place.label for place in known.values()}))
    if fitting:
        several = ", ".join(sorted(place.key for place in fitting))
        raise BadInput(f"--pinned={text} may be any of {several}; give one of them")
    what = f"is no path, no revision of '{repo}' and no commit of a record"
    if commit:
        what = f"is commit {commit[:SHORT]}, of which there is no record"
    raise BadInput(f"--pinned={text} {what}; there are records of {labels}")


def _pinned_folder(path: Path, line: dict[str, Line], timeline: Timeline) -> Pin:
    records = newest(read([path])[0])
    own = Timeline(records, line, str(path))
    found = build(records, own)
    latest = max((one.last.commit for one in found), default=None)
    placed = latest if own.by_repository == timeline.by_repository else None
    folder = {(one.cell, one.metric): one for one in found if one.since is None}
    return Pin(str(path), placed, folder)
