"""A comparison as Markdown for a pull request: the verdict, what matters, the rest folded away."""

from collections import Counter
from collections.abc import Collection, Sequence

from bench.report.compare.sentences import sentences
from bench.report.compare.sheet import INTERVALS, sheet
from bench.report.compare.verdict import EXIT_CODES, Finding
from bench.report.sheet import Sheet
from bench.report.sheet import to_markdown as table

SAME, NEW = "same", "new"
QUIET = (SAME, NEW)


def headline(findings: Sequence[Finding], fail_on: Collection[str]) -> str:
    """One sentence: how many findings of each verdict, and which of them fail."""
    counts = Counter(finding.verdict for finding in findings)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in EXIT_CODES if counts[verdict])
    failing = [verdict for verdict in EXIT_CODES if counts[verdict] and verdict in fail_on]
    if not findings:
        return "Nothing to compare."
    return f"{'Fails' if failing else 'Passes'}: {said}." + (
        f" Fails on {', '.join(failing)}." if failing else ""
    )


def to_markdown(findings: Sequence[Finding], fail_on: Collection[str], notes: Sequence[str]) -> str:
    """The whole report."""
    loud = [finding for finding in findings if finding.verdict not in QUIET]
    parts = ["## Archbench", "", f"**{headline(findings, fail_on)}**", ""]
    if loud:
        parts += [table(sheet("What changed or cannot be told", loud)), ""]
        parts += [f"- {line}" for line in sentences(loud)]
        parts.append("")
    for verdict, title, said in (
        (NEW, "New", "that base has no result of"), (SAME, "The same", "without a change"),
    ):  # fmt: skip
        if quiet := [finding for finding in findings if finding.verdict == verdict]:
            parts += ["<details>", f"<summary>{len(quiet)} {said}</summary>", ""]
            parts += [table(sheet(title, quiet)), "</details>", ""]
    return "\n".join([*parts, *(f"{note}  " for note in (INTERVALS, *notes))]).rstrip() + "\n"


def from_sheets(
    findings: Sequence[Finding],
    fail_on: Collection[str],
    sheets: Sequence[Sheet],
    quiet: Collection[str],
) -> str:
    """The verdict, the sheets of a command, and a sentence for each finding that is not `quiet`."""
    parts = ["## Archbench", "", f"**{headline(findings, fail_on)}**", ""]
    for one in sheets:
        parts += [table(one), ""]
    loud = [finding for finding in findings if finding.verdict not in quiet]
    parts += [f"- {line}" for line in sentences(loud)]
    return "\n".join(parts).rstrip() + "\n"
