"""`frontier [PATHS…]`: the largest batch or context that fits, and what one more item takes."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from bench.arguments import Subcommands, add_paths, given_path
from bench.console import make_console
from bench.errors import BadInput
from bench.report.cell_rows import compact, flaws, names, scaled
from bench.report.commands.reading import read
from bench.report.heading import context
from bench.report.select import select
from bench.report.sheet import Entry, Sheet, show, to_csv
from bench.store import Record
from bench.store.parts import PointPart, SweepPart

SCENARIO = "frontier"
KIB, MIB = 2**10, 2**20
# `names` gives the scenario as well, which is the sheet's own.
HEADS = ["model", "task", "size", "seed", "changed", "largest", "peak MiB", "KiB each", "±",
         "fixed MiB", "fails at", "limited by"]  # fmt: skip
LIMITS = {
    "memory": "memory",
    "point_seconds": "time of a point",
    "max_seconds": "time in all",
    "max": "scenario.max",
}
MEANING = (
    "Peak: of the whole process (on a GPU: of torch's allocator) at the largest value that fits. "
    "KiB each and fixed MiB: slope and intercept of the peaks by least squares, ± 95 %. Fails at: "
    "the least value that was seen to fail. The peak counts library pages that were read in after "
    "the start, which a limit does not."
)


@dataclass(frozen=True)
class Line:
    """Bytes that each further value takes, half of its 95 % interval, and bytes at none."""

    slope: float
    half: float
    fixed: float


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "frontier", help="the largest batch or context that fits, and bytes of one more item"
    )
    parser.set_defaults(run=run)
    add_paths(parser)
    parser.add_argument("--csv", type=given_path, metavar="FILE", help="write the values, too")


def run(options: argparse.Namespace) -> int:
    """Print a sheet for each question that was asked; returns the exit code."""
    records, _ = read(options.paths)
    found = show_sheets(records, make_console())
    if not found:
        raise BadInput("no record has a frontier; run `python -m bench suite=frontier` first")
    if options.csv:
        to_csv(_joined(found), options.csv)
    return 0


def show_sheets(records: Sequence[Record], console: Console) -> list[Sheet]:
    """Print what the frontiers among `records` say; the sheets, none where there is none."""
    found = sheets(records)
    for sheet in found:
        console.print()
        show(compact(sheet), console)
    return found


def sheets(records: Sequence[Record]) -> list[Sheet]:
    """One for each axis, mode, limit and machine: values of one sheet answer one question."""
    questions: dict[str, list[Record]] = {}
    for record in records:
        if record["cell"]["scenario"] == SCENARIO and record.get("sweep"):
            questions.setdefault(_question(record["sweep"]), []).append(record)
    made = []
    for question, asked in questions.items():
        for selection in select(asked):
            rows = [record for row in selection.current for record in row.records()]
            rows.sort(key=_order)
            title = f"Largest {question} · {context(selection)}"
            notes = [MEANING, *flaws(rows, invalid=True)]
            made.append(Sheet(title, HEADS, [_row(record) for record in rows], notes))
    return made


def _question(sweep: SweepPart) -> str:
    """What was asked: the axis, what had to fit, what stood still, the limit."""
    axis, limit = sweep["axis"], sweep.get("memory_limit_gib")
    still = f"batch {sweep.get('batch')}"
    if axis == "batch":
        length = sweep.get("context")
        still = f"context {length}" if length else "items of the task's own length"
    within = f"memory_limit_gib={limit:g}" if limit else "the memory that was free"
    return f"{axis} of {sweep.get('mode')} · {still} · within {within}"


def _order(record: Record) -> tuple[str, int, int]:
    size = (record.get("parameters") or {}).get("target") or 0
    return record["cell"]["model"], size, record["cell"]["seed"]


def _row(record: Record) -> list[Entry]:
    model, task, _, size, seed, changed = names(record)
    sweep = record["sweep"]
    largest, found = sweep.get("largest"), measured(sweep)
    line = fit(found)
    slope, half, fixed = (line.slope, line.half, line.fixed) if line else (None, None, None)
    peak = next((p["peak_bytes"] for p in found if p["at"] == largest), None)
    by = sweep.get("limited_by")
    return [
        model, task, size, seed, changed, _whole(largest), scaled(peak, 1 / MIB),
        scaled(slope, 1 / KIB), scaled(half, 1 / KIB), scaled(fixed, 1 / MIB),
        _whole(sweep.get("smallest_failed")), Entry(LIMITS.get(by, by) if by else record["status"]),
    ]  # fmt: skip


def _whole(value: int | None) -> Entry:
    return Entry(None) if value is None else Entry(value, f"{value:,}")


def measured(sweep: SweepPart) -> list[PointPart]:
    """The points with a peak, in rising order."""
    points = sweep.get("points") or []
    found = [p for p in points if p["status"] == "ok" and p.get("peak_bytes") is not None]
    return sorted(found, key=lambda point: point["at"])


def fit(points: Sequence[PointPart]) -> Line | None:
    """The line through the peaks; None with fewer than three, which a line needs to be tested.

    The interval of the slope is Student's with n - 2 degrees of freedom.
    """
    if len(points) < 3:
        return None
    from scipy import stats

    x = np.array([point["at"] for point in points], dtype=float)
    y = np.array([point["peak_bytes"] for point in points], dtype=float)
    found = stats.linregress(x, y)
    half = float(stats.t.isf(0.025, len(x) - 2) * found.stderr)
    return Line(float(found.slope), half, float(found.intercept))


def _joined(found: Sequence[Sheet]) -> Sheet:
    """All sheets as one for a file, each row with the title of its own."""
    rows = [[Entry(sheet.title), *row] for sheet in found for row in sheet.rows]
    return Sheet("Frontiers", ["question", *HEADS], rows)
