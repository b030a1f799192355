"""What a comparison says of one metric of one cell."""

from collections.abc import Iterable
from dataclasses import dataclass

# From the gravest to the lightest, each with the exit code of a comparison that fails on it.
EXIT_CODES = {
    "slower": 10,  # a time got longer by more than noise explains
    "worse": 11,  # a score got worse
    "changed": 12,  # an exact figure (parameters, state bytes, FLOPs) is another one
    "not comparable": 13,  # another machine, data, backend, kernel or version of a definition
    "ambiguous": 14,  # the samples cannot tell
    "better": 15,  # a score got better
    "faster": 16,
    "new": 17,  # base has no result of the cell, or does not state the metric
    "same": 0,
}
# What head is held against: base (in a history the commit before), a release, or the level that a
# change ended.
BASE, PINNED, CHANGE = "base", "pinned", "change"
FAILABLE = tuple(verdict for verdict, code in EXIT_CODES.items() if code)
FAIL_ON = ("slower", "worse", "not comparable")  # unless told otherwise


@dataclass(frozen=True)
class Finding:
    """`ratio` is head over base, [low, high] its interval: 95 % of a time, 99 % of a score.

    `smallest` is the least relative change that these samples could have shown (0.05: 5 %).
    `at` is the commit of a change.
    """

    cell: str
    metric: str
    verdict: str
    reason: str
    unit: str = ""
    base: float | None = None
    head: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None  # of the second vote, corrected over all times or over all scores
    n_base: int = 0
    n_head: int = 0
    smallest: float | None = None
    against: str = BASE
    at: str = ""

    @property
    def name(self) -> str:
        """The metric and what it is held against: no other finding of the cell has it."""
        said = {PINNED: " (against the pinned)", CHANGE: f" (at {self.at})"}
        return self.metric + said.get(self.against, "")


def gravity(verdict: str) -> int:
    """A rank: the gravest verdict has the least."""
    return list(EXIT_CODES).index(verdict)


def gravest_first(findings: Iterable[Finding]) -> list[Finding]:
    """The findings by their gravity; those of one verdict stay in order."""
    return sorted(findings, key=lambda finding: gravity(finding.verdict))


def exit_code(findings: Iterable[Finding], fail_on: Iterable[str] = FAIL_ON) -> int:
    """The code of the gravest verdict that is failed on, else 0."""
    found = {finding.verdict for finding in findings} & set(fail_on)
    return next((code for verdict, code in EXIT_CODES.items() if verdict in found), 0)
