"""The reasons of findings as lines to read.

What more than `ALIKE` of them share is said once.
"""

from collections.abc import Iterable

from bench.report.compare.verdict import Finding

ALIKE = 3  # so many of one reason still stand each for itself


def sentences(findings: Iterable[Finding]) -> list[str]:
    """One line a finding, in order; of more than `ALIKE` with one reason, one for all."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.verdict, _why(finding)), []).append(finding)
    lines = []
    for (verdict, why), members in groups.items():
        if len(members) > ALIKE:
            first, last = _subject(members[0]), _subject(members[-1])
            lines.append(f"{verdict}: {len(members)} times, from {first} to {last}: {why}")
        else:
            lines += [f"{verdict}: {finding.reason}" for finding in members]
    return lines


def _subject(finding: Finding) -> str:
    """What the reason begins with: the cell and, but for its whole result, the metric."""
    named = f"{finding.cell}, {finding.metric}"
    return named if finding.reason.startswith(named) else finding.cell


def _why(finding: Finding) -> str:
    """The reason without what it is said of."""
    return finding.reason.removeprefix(_subject(finding)).removeprefix(":").strip()
