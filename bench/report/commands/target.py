"""`target [PATHS…]`: seconds, tokens and FLOPs of training until validation met a stated score.

The target is that of the task's YAML (`target`), or is given: `--target 2.0`, or for one task
`--target code=2.0`. Validation is scored at equal shares of the training, `scenario.checks` times,
outside its seconds. The first check that meets the target counts: nothing is interpolated. "not
reached" is a result. A schedule that cools down is worse half-way than one that was planned to end
there, so these figures compare trainings of one budget, and are no least time to that score. Where
the budgets of rows differ, a shorter training may be there first for that alone.
"""

import argparse
import math

from bench.arguments import Subcommands, add_paths, given_path
from bench.console import make_console
from bench.errors import BadInput
from bench.report.commands.reading import add_target, read
from bench.report.formats import significant
from bench.report.heading import context
from bench.report.heads import ARROWS, metric_of
from bench.report.noise import provisional
from bench.report.select import Selection, select
from bench.report.sheet import Entry, Sheet, show, to_csv
from bench.report.targets import (
    NOT_REACHED,
    SCHEDULE,
    Reach,
    Targets,
    median,
    parse,
    reaches,
    target_of,
)

HEADS = ["row", "reached by", "s", "items", "tokens", "FLOPs", "trained s", "checks", ""]
WHOLE = ["task", "target", *HEADS[:-1], "note"]


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "target", help="seconds, tokens and FLOPs of training until validation met a stated score",
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    add_paths(parser)
    add_target(parser)
    parser.add_argument("--csv", type=given_path, metavar="FILE", help="write the values, too")


def run(options: argparse.Namespace) -> int:
    """Print a sheet for each task; returns the exit code."""
    records, _ = read(options.paths, brief=True)
    targets = parse(options.target)
    console = make_console()
    rows: list[list[Entry]] = []
    for selection in select(records):
        made = sheet(selection, targets)
        if made is None:
            continue
        console.print()
        console.print(context(selection), soft_wrap=True)
        show(made, console)
        target = target_of(selection.records, selection.key.task, targets)
        rows += [[Entry(selection.key.task), Entry(target), *row] for row in made.rows]
    if not rows:
        raise BadInput(
            "no record has scores on validation in the course of training with a target to hold "
            "them against; run `python -m bench scenario=quality`, or give --target=VALUE"
        )
    if options.csv:
        to_csv(Sheet("Time to target", WHOLE, rows), options.csv)
    return 0


def sheet(selection: Selection, targets: Targets) -> Sheet | None:
    """The rows of a block, the fastest first; None where there is nothing to show."""
    target = target_of(selection.records, selection.key.task, targets)
    found = [] if target is None else reaches(selection, target)
    if target is None or not found:
        return None
    metric, better = metric_of(selection)
    return Sheet(
        f"{selection.key.task}: time to {metric} {target:g} {ARROWS.get(better, '')} on validation",
        HEADS,
        [_row(reach) for reach in found],
        [f"Medians over seeds, at the first check that met it. {SCHEDULE}"],
    )


def _row(reach: Reach) -> list[Entry]:
    taken = reach.taken
    return [
        Entry(reach.name),
        Entry(reach.reached, f"{reach.reached} of {len(taken)}"),
        _entry(reach.seconds),
        *(_entry(median([getattr(one, name) for one in taken]))
          for name in ("items", "tokens", "flops")),
        _entry(median([one.trained for one in taken])),
        Entry(max(one.checks for one in taken)),
        Entry(provisional(len(taken)) or ("one seed" if len(taken) == 1 else "")),
    ]  # fmt: skip


def _entry(value: float | None) -> Entry:
    if value is None:
        return Entry(None)
    if math.isinf(value):
        return Entry(NOT_REACHED)
    return Entry(value, significant(value))
