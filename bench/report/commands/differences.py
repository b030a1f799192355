"""`differences [PATHS…]`: how far rows are apart, and whether that is more than noise.

Every row against the best of its group, or every pair. A group is what is ranked together: a task
on one machine, a size and an objective. Rows that were trained from the same seeds are paired by
seed and by test item, and the 95 % interval is over both (bench/report/intervals.py), of each
difference alone. The words follow p after Holm's (1979) correction over all pairs of the group, so
that a false "better" stands in 5 % of the groups at most. Fewer than five seeds are provisional;
with one seed the difference is that of two runs, for nothing is known of other seeds.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.arguments import Subcommands, add_paths, given_path
from bench.console import make_console
from bench.errors import BadInput
from bench.report.commands.reading import read
from bench.report.differences import RULES, Difference, best_first, differences
from bench.report.formats import significant
from bench.report.heading import context, title
from bench.report.intervals import LEVEL
from bench.report.labels import label
from bench.report.noise import ITEMS, Score, provisional, summarise
from bench.report.ranking import objective_of
from bench.report.select import Selection, select
from bench.report.sheet import Entry, Sheet, show, to_csv

GROUP = ["task", "size", "objective"]
HEADS = ["row", "against", "difference", "low", "high", "seeds", "p", "p (Holm)", "in words",
         "note"]  # fmt: skip
ADJUSTED = (
    "low, high: 95 % interval of this difference alone. In words: p after Holm's correction over "
    "all pairs of the group ({n}), at {level:.0%}."
)
LEAST = 1e-4  # p that is written in digits


class Group(NamedTuple):
    """Rows that are ranked together."""

    selection: Selection
    size: str
    objective: str
    scores: dict[str, Score]  # by label, best first

    @property
    def name(self) -> list[Entry]:
        """The entries below `GROUP`."""
        return [Entry(self.selection.key.task), Entry(self.size), Entry(self.objective)]


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "differences", help="how far rows are apart, with intervals, and what is within noise",
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    add_paths(parser)
    parser.add_argument("--pairs", action="store_true", help="every pair, not the best alone")
    parser.add_argument("--csv", type=given_path, metavar="FILE", help="write the values, too")


def run(options: argparse.Namespace) -> int:
    """Print a sheet for each group; returns the exit code."""
    records, roots = read(options.paths, brief=True)
    found = [group for selection in select(records) for group in groups_of(selection, roots)]
    if not found:
        raise BadInput(
            "no two rows have a score of the same task, size and objective; needed are records of "
            "scenario=quality of two models at least"
        )
    console = make_console()
    rows: list[list[Entry]] = []
    above = ""
    for group in found:
        heading = context(group.selection)
        if heading != above:
            console.print()
            console.print(heading, soft_wrap=True)
        above = heading
        made = sheet(group, pairs=options.pairs)
        show(made, console)
        rows += [[*group.name, *row] for row in made.rows]
    if options.csv:
        to_csv(Sheet("Differences", [*GROUP, *HEADS], rows), options.csv)
    return 0


def groups_of(selection: Selection, roots: Sequence[Path]) -> list[Group]:
    """The groups of a block with two rows at least."""
    groups: dict[tuple[str, str], dict[str, Score]] = {}
    for row in selection.current:
        records = row.scenarios.get("quality", [])
        score = summarise(records, roots)
        if score is None:
            continue
        quality = next(dict(r.get("quality") or {}) for r in records if r["status"] == "ok")
        key = row.size, objective_of(selection.key.kind, score, quality)
        groups.setdefault(key, {})[label(row, selection.current)] = score
    return [
        Group(selection, *key, best_first(scores))
        for key, scores in groups.items()
        if len(scores) > 1
    ]


def sheet(group: Group, *, pairs: bool) -> Sheet:
    """A row a difference: the worse of two less the better."""
    first, *_ = group.scores
    every = differences(dict(reversed(group.scores.items())))
    chosen = {pair: one for pair, one in every.items() if pairs or pair[1] == first}
    rules = dict.fromkeys(RULES[one.rule] for one in chosen.values())
    score, several = group.scores[first], {row.size for row in group.selection.current}
    names = [title(group.selection, score.metric, score.better), group.objective]
    return Sheet(
        " · ".join([*names, *([f"size {group.size}"] if len(several) > 1 else [])]),
        HEADS,
        [_row(pair, chosen[pair], score.better) for pair in reversed(chosen)],
        [ADJUSTED.format(n=len(every), level=LEVEL), *(f"Taken {rule}." for rule in rules)],
    )


def _row(pair: tuple[str, str], found: Difference, better: str) -> list[Entry]:
    value, half = found.value, found.half
    low, high = (None, None) if half is None else (value - half, value + half)
    note = "one seed" if found.rule == ITEMS else provisional(found.seeds)
    return [
        *map(Entry, pair),
        *(Entry(x, "" if x is None else f"{x:+.4f}") for x in (value, low, high)),
        Entry(found.seeds),
        *(_p(x) for x in (found.p, found.adjusted)),
        Entry(in_words(pair, found, better)),
        Entry(note),
    ]  # fmt: skip


def _p(value: float) -> Entry:
    if math.isnan(value):
        return Entry(None, "")
    return Entry(value, significant(value, 2) if value >= LEAST else f"<{LEAST:g}")


def in_words(pair: tuple[str, str], found: Difference, better: str) -> str:
    """A plain statement on the difference of the first row from the second."""
    if found.half is None:
        return "not judged: nothing is known of the noise"
    if found.adjusted > LEVEL:
        return "within noise"
    winner = pair[0] if (found.value > 0) == (better == "higher") else pair[1]
    run = "'s run" if found.rule == ITEMS else ""
    return f"{winner}{run} is better by {significant(abs(found.value))}"
