"""A comparison as JSON: our own, that of github-action-benchmark, and that of Bencher.

Those two keep a series of every name that they are given, so they get head's figure of each metric
once: from the findings against base.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.report.compare.metrics import CALL
from bench.report.compare.verdict import BASE, Finding
from bench.store import plain


def document(findings: Sequence[Finding], exit_code: int) -> dict[str, Any]:
    """Everything that is known; NaN is null."""
    rows = [asdict(finding) for finding in findings]
    return dict(plain({"exit_code": exit_code, "findings": rows}, "comparison"))


def benchmark_action(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Head's figures for github-action-benchmark's tool `customSmallerIsBetter`.

    Scores are left out: of some more is better, and that tool takes one direction a file.
    """
    return [
        {
            "name": f"{finding.cell}, {finding.metric}",
            "unit": finding.unit,
            "value": head,
            "range": f"± {_half(finding):.3g}",
            "extra": f"{finding.verdict}: {finding.reason}",
        }
        for finding, head in _heads(findings)
        if finding.unit in ("s", "exact")
    ]


def bencher(findings: Sequence[Finding]) -> dict[str, dict[str, Mapping[str, float]]]:
    """Head's figures in the Bencher Metric Format: benchmark, measure, value and its bounds."""
    found: dict[str, dict[str, Mapping[str, float]]] = {}
    for finding, head in _heads(findings):
        half = _half(finding)
        measure = "latency" if finding.metric == CALL else _slug(finding.metric)
        scale = 1e9 if measure == "latency" else 1.0  # Bencher's own measure is in nanoseconds
        found.setdefault(finding.cell, {})[measure] = {
            "value": head * scale,
            "lower_value": (head - half) * scale,
            "upper_value": (head + half) * scale,
        }
    return found


def _heads(findings: Sequence[Finding]) -> list[tuple[Finding, float]]:
    """The findings against base that have a figure of head, with it."""
    return [
        (finding, finding.head)
        for finding in findings
        if finding.against == BASE and finding.head is not None
    ]


def _half(finding: Finding) -> float:
    """Half the width of head's interval, taken from that of the ratio."""
    if finding.base is None or finding.low is None or finding.high is None:
        return 0.0
    half = finding.base * (finding.high - finding.low) / 2
    return half if half == half else 0.0  # NaN: nothing was judged


def _slug(metric: str) -> str:
    return "-".join(metric.lower().split())
