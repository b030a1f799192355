"""`grid [PATHS…]`: backbones down, objectives across, one sheet a task."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bench.arguments import Subcommands, add_paths
from bench.console import make_console
from bench.errors import BadInput
from bench.report.commands.reading import read
from bench.report.formats import limit, score
from bench.report.heading import title
from bench.report.labels import label
from bench.report.noise import Score, summarise
from bench.report.select import Selection, Variant, select
from bench.report.sheet import Entry, Sheet, show, to_markdown
from bench.store import Record

OBJECTIVES = ("autoregressive", "classification", "diffusion")
OTHER = "family's own"  # of a row that neither ran nor says its objective
READING = (
    "≤: an upper bound of the exact value. Compare down a column: equal images are no equal work "
    "across objectives."
)
# What the read-out of a classifier says of its objective.
READOUTS = {"log p(x|y)": "autoregressive", "head": "classification", "bound": "diffusion"}


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "grid", help="scores of backbones under objectives, from suite grid or any other"
    )
    parser.set_defaults(run=run)
    add_paths(parser)
    parser.add_argument("--markdown", action="store_true", help="print Markdown")


def run(options: argparse.Namespace) -> int:
    """Print a sheet for each task; returns the exit code."""
    records, roots = read(options.paths)
    found = sheets(records, [Path(root) for root in roots])
    if not found:
        raise BadInput("no record has a score; run `python -m bench suite=grid` first")
    console = make_console()
    for sheet in found:
        _print(sheet, console, markdown=options.markdown)
    return 0


def _print(sheet: Sheet, console: Console, *, markdown: bool) -> None:
    if markdown:
        print(to_markdown(sheet))
        return
    console.print()
    show(sheet, console)


def sheets(records: Sequence[Record], roots: Sequence[Path]) -> list[Sheet]:
    """One for each block of comparable records that has a score."""
    scored = [r for r in records if r["cell"]["scenario"] == "quality" or r["status"] != "ok"]
    return [sheet for one in select(scored) if (sheet := _sheet(one, roots)) is not None]


def _sheet(selection: Selection, roots: Sequence[Path]) -> Sheet | None:
    found: dict[str, dict[str, Entry]] = {}
    notes: dict[str, list[str]] = {}
    metric = better = ""
    rows = [_backbone(variant) for variant in selection.current]
    for variant, row in zip(selection.current, rows, strict=True):
        summary = summarise(variant.scenarios.get("quality", []), roots)
        if summary is not None:
            metric, better = summary.metric, summary.better
        name, objective = label(row, rows), _objective(variant, summary)
        entry, note = _entry(variant, summary)
        cells = found.setdefault(name, {})
        if objective not in cells or summary is not None:
            cells[objective] = entry
        if note:
            notes.setdefault(objective, []).append(f"{name}, {objective}: {note}")
    scored = {o for cells in found.values() for o, cell in cells.items() if cell.value is not None}
    columns = [objective for objective in OBJECTIVES if objective in scored]
    if not columns:
        return None
    lines = [
        [Entry(name), *(cells.get(column, Entry(None)) for column in columns)]
        for name, cells in sorted(found.items())
        if any(column in cells for column in columns)
    ]
    told = [note for column in columns for note in notes.get(column, ())]
    return Sheet(title(selection, metric, better), ["backbone", *columns], lines, [READING, *told])


def _backbone(variant: Variant) -> Variant:
    """The row without its objective, and without what was given of the suite: its task's is one."""
    own = tuple(text for text in variant.overrides if not text.startswith("suite."))
    return replace(variant, objective="", overrides=own)


def _objective(variant: Variant, summary: Score | None) -> str:
    """What a row was trained for, as its score tells it."""
    if variant.objective:
        return variant.objective
    if summary is None:
        return OTHER
    for record in variant.scenarios["quality"]:
        if readout := ((record.get("quality") or {}).get("notes") or {}).get("readout"):
            return READOUTS.get(str(readout), OTHER)
    return "diffusion" if summary.bound else "autoregressive"


def _entry(variant: Variant, summary: Score | None) -> tuple[Entry, str]:
    """The score with its interval, or why there is none."""
    if summary is not None:
        return Entry(summary.value, score(summary.value, summary.half, summary.bound)), ""
    for record in variant.records():
        if record["status"] != "ok":
            text = "n/a" if record["status"] == "unsupported" else record["status"]
            return Entry(None, text), limit(record.get("reason") or "no reason recorded")
    return Entry(None), ""
