"""Time to target: what training takes until validation is as good as was asked, as in MLPerf.

Mattson et al. (2020), "MLPerf Training Benchmark", arXiv:1910.01500. The first check that meets the
target counts, without interpolation; "not reached" is a result. Seeds are summed up by their
median, in which one that did not reach it lies beyond all others.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import BadInput
from bench.report.formats import MISSING, significant
from bench.report.labels import label
from bench.report.layout import Cell, Measure, Notes
from bench.report.noise import provisional
from bench.report.select import Selection
from bench.store.record import Record

NOT_REACHED = "not reached"
SCHEDULE = (
    "A training that was planned to end there would have cooled down before, and be there sooner."
)
Targets = Mapping[str, float]  # by task; that of "" is for all others
NO_TARGETS: Targets = {}


@dataclass(frozen=True)
class Taken:
    """What one training took to the target; infinite where it was not reached, None: not known.

    `trained` are the seconds of the whole training, `checks` how often validation was scored.
    """

    seconds: float
    items: float
    tokens: float | None
    flops: float | None
    trained: float
    checks: int

    @property
    def reached(self) -> bool:
        return math.isfinite(self.seconds)


def taken(record: Record, target: float) -> Taken | None:
    """What the training of a record took; None where validation was not scored on the way.

    A training that failed, as by diverging, reached nothing.
    """
    if record["status"] == "failed":
        return Taken(math.inf, math.inf, math.inf, math.inf, trained=0.0, checks=0)
    curve: Mapping[str, Any] = dict(record.get("curve") or {})
    checks: Mapping[str, Any] = curve.get("validation") or {}
    points = list(zip(*(checks.get(k) or [] for k in ("items", "seconds", "value")), strict=False))
    if record["status"] != "ok" or not points:
        return None
    lower = (record.get("quality") or {}).get("better") != "higher"
    met = (p for p in points if (p[2] <= target if lower else p[2] >= target))
    items, seconds, _ = next(met, (math.inf, math.inf, None))
    tokens, flops = curve.get("tokens_per_item"), curve.get("flops_per_item")
    return Taken(
        seconds=seconds,
        items=items,
        tokens=None if tokens is None else items * tokens,
        flops=None if flops is None else items * flops,
        trained=points[-1][1],
        checks=len(points),
    )


def median(values: Sequence[float | None]) -> float | None:
    """Over seeds; None where one is not known, infinite where half of them or more are."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if values and len(known) == len(values) else None


def target_of(records: Sequence[Record], task: str, given: Targets) -> float | None:
    """The target of a task: as it is given, else as the newest record of `records` states it."""
    if (found := given.get(task, given.get(""))) is not None:
        return found
    stated = ((r.get("quality") or {}).get("target") for r in records)
    return next((float(target) for target in stated if target is not None), None)


@dataclass(frozen=True)
class Reach:
    """What the trainings of a row took, one a seed."""

    name: str
    family: str
    model: str
    taken: tuple[Taken, ...]

    @property
    def seconds(self) -> float:
        """The median; infinite where it was not reached."""
        return statistics.median(one.seconds for one in self.taken)

    @property
    def reached(self) -> int:
        """How many seeds."""
        return sum(one.reached for one in self.taken)


def reaches(selection: Selection, target: float) -> list[Reach]:
    """The rows of a block whose trainings were checked, the fastest first."""
    found = []
    for row in selection.current:
        records = row.scenarios.get("quality", [])
        ones = tuple(t for r in records if (t := taken(r, target)) is not None)
        if any(one.checks for one in ones):
            found.append(Reach(label(row, selection.current), row.family, row.model, ones))
    return sorted(found, key=lambda reach: (reach.seconds, reach.name))


def target_cell(records: Sequence[Record], target: float | None, notes: Notes) -> Cell:
    """The cell of a row: median seconds, or more than were trained where it was not reached."""
    found = [t for r in records if target is not None and (t := taken(r, target)) is not None]
    if not any(one.checks for one in found):
        return Cell(MISSING, status="missing")
    median_s = median([t.seconds for t in found])
    assert median_s is not None  # seconds are always known
    reached, n = sum(t.reached for t in found), len(found)
    marks: tuple[str, ...] = ()
    if 0 < reached < n:
        marks += (notes.number(f"target reached by {reached} of {n} seeds"),)
    if words := provisional(n):
        marks += (notes.number(words),)
    if math.isfinite(median_s):
        text = _short(median_s)
    else:
        text = ">" + _short(max(t.trained for t in found))
        notes.sign(">", f"target {NOT_REACHED} in these seconds of training")
    measures = [
        _measure("to_target_seconds", median_s, "s", n),
        _measure("to_target_items", median([t.items for t in found]), "items", n),
        _measure("to_target_tokens", median([t.tokens for t in found]), "tokens", n),
        _measure("to_target_flops", median([t.flops for t in found]), "FLOPs", n),
        Measure("to_target_reached", float(reached), unit="seeds", n=n),
        Measure("target", target),
    ]
    return Cell(
        text, tuple(m for m in measures if m.value is not None or m.label), marks=marks,
        records=tuple(record["id"] for record in records),
    )  # fmt: skip


def explain_target(metric: str, better: str, target: float, notes: Notes) -> None:
    """Say what the column is."""
    limit = "at least" if better == "higher" else "at most"
    notes.add(
        f"to {target:g}: seconds of training to the first check on validation with {metric} of "
        f"{limit} {target:g}, median over seeds. {SCHEDULE}"
    )


def parse(texts: Sequence[str]) -> dict[str, float]:
    """TASK=VALUE or VALUE, as the command line has them; BadInput where one is neither."""
    found: dict[str, float] = {}
    for text in texts:
        task, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise BadInput(f"--target={text} is no score; allowed: VALUE, or TASK=VALUE")
        found[task] = value
    return found


def _short(seconds: float) -> str:
    return significant(seconds, 2) if seconds < 10 else f"{seconds:.0f}"


def _measure(name: str, value: float | None, unit: str, n: int) -> Measure:
    if value is not None and math.isinf(value):
        return Measure(name, label=NOT_REACHED, unit=unit, better="lower", n=n)
    return Measure(name, value, unit=unit, better="lower", n=n)
