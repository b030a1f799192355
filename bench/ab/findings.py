"""What a duel says, in the words of every comparison."""

from collections.abc import Sequence

from bench.ab.duel import SEPARATOR, Cell
from bench.report.compare.sequential import Sequential
from bench.report.compare.statistics import Judgement
from bench.report.compare.verdict import Finding


def findings(rule: Sequential, cells: Sequence[Cell]) -> list[Finding]:
    """One for each timed metric, and one for each cell that failed."""
    failed = {cell.name: cell.failure for cell in cells if cell.failure is not None}
    found = [
        Finding(cell, "result", "worse" if why.startswith("head") else "not comparable", why)
        for cell, why in failed.items()
    ]
    for name, judgement in rule.verdicts().items():
        cell, _, metric = name.rpartition(SEPARATOR)
        if cell not in failed:
            found.append(timed(cell, metric, judgement))
    return found


def timed(cell: str, metric: str, judgement: Judgement) -> Finding:
    """A judged time."""
    return Finding(
        cell, metric, judgement.verdict, f"{cell}, {metric}: {judgement.why}", unit="s",
        ratio=judgement.ratio, low=judgement.low, high=judgement.high, p=judgement.p,
        n_base=judgement.n_base, n_head=judgement.n_head, smallest=judgement.smallest,
    )  # fmt: skip
