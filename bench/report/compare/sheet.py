"""Findings as a sheet."""

import math
from collections.abc import Sequence

from bench.report.compare.statistics import ALPHA, LEVEL
from bench.report.compare.verdict import Finding
from bench.report.formats import MISSING, significant
from bench.report.sheet import Entry, Sheet

STYLES = {
    "slower": "red", "worse": "red", "changed": "yellow", "not comparable": "yellow",
    "ambiguous": "yellow", "better": "green", "faster": "green", "new": "dim", "same": "dim",
}  # fmt: skip
COLUMNS = [
    "verdict",
    "cell",
    "metric",
    "base",
    "head",
    "head/base",
    "interval",
    "n",
    "could find",
]

INTERVALS = f"Interval: of head/base, {LEVEL:.0%} of a time, {1 - ALPHA:.0%} of a score over seeds."


def sheet(title: str, findings: Sequence[Finding], notes: Sequence[str] = ()) -> Sheet:
    """One row a finding."""
    return Sheet(title, COLUMNS, [_row(finding) for finding in findings], notes)


def _row(finding: Finding) -> list[Entry]:
    n = f"{finding.n_base}/{finding.n_head}" if finding.n_base or finding.n_head else ""
    return [
        Entry(finding.verdict, style=STYLES[finding.verdict]),
        Entry(finding.cell),
        Entry(finding.name),
        value_entry(finding.base, finding.unit),
        value_entry(finding.head, finding.unit),
        Entry(finding.ratio, _ratio(finding.ratio)),
        Entry(_interval(finding)),
        Entry(n or None),
        Entry(finding.smallest, _share(finding.smallest)),
    ]


def value_entry(value: float | None, unit: str) -> Entry:
    """A value in the unit that a finding names: times in ms, exact figures whole."""
    if value is None:
        return Entry(None)
    if unit == "s":
        return Entry(value, f"{significant(value * 1e3)} ms")
    return Entry(value, f"{value:.0f}" if unit == "exact" else significant(value, 4))


def _ratio(ratio: float | None) -> str:
    return MISSING if ratio is None or math.isnan(ratio) else f"{ratio:.3f}"


def _interval(finding: Finding) -> str | None:
    if finding.low is None or finding.high is None or math.isnan(finding.low):
        return None
    return f"[{finding.low:.3f}, {finding.high:.3f}]"


def _share(smallest: float | None) -> str:
    return MISSING if smallest is None or math.isnan(smallest) else f"{smallest:.1%}"
