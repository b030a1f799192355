"""What other tools' rules say of the same samples, each by its own library."""

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from bench.selftest.pool import Pool
from bench.selftest.rehearse import pairs

Processes = list[Sequence[float]]
Rule = Callable[[Processes, Processes], bool]
THRESHOLD = 0.07


def asv(base: Processes, head: Processes) -> bool:
    """asv's published rule: Mann-Whitney at 0.002, then a factor of 1.1 (`asv compare`'s own)."""
    from asv.commands.compare import _is_result_better
    from asv_runner.statistics import compute_stats

    sides = []
    for processes in (base, head):
        values = _medians(processes)
        summary, details = compute_stats(values, 1)
        sides.append((summary, ({**details, "repeat": len(values)}, values)))
    (before, before_stats), (after, after_stats) = sides
    better = _is_result_better(after, before, after_stats, before_stats, 1.1)
    return bool(better or _is_result_better(before, after, before_stats, after_stats, 1.1))


def pyperf(base: Processes, head: Processes) -> bool:
    """pyperf's `compare_to`: Student's t-test at 95 % over all values of all processes."""
    from pyperf._utils import is_significant

    sides = [[value for samples in side for value in samples] for side in (base, head)]
    count = min(map(len, sides))  # it refuses unequal numbers
    significant, _ = is_significant(sides[0][:count], sides[1][:count])
    return bool(significant)


def threshold(base: Processes, head: Processes) -> bool:
    """A plain limit on the ratio of means."""
    means = [statistics.fmean(_medians(side)) for side in (base, head)]
    return abs(means[1] / means[0] - 1) > THRESHOLD


def _medians(processes: Processes) -> list[float]:
    return [statistics.median(samples) for samples in processes]


# By name, with the library that the rule is taken from.
RULES: dict[str, tuple[Rule, str | None]] = {
    "asv, Mann-Whitney and 1.1": (asv, "asv"),
    "pyperf, t-test": (pyperf, "pyperf"),
    f"{THRESHOLD:.0%} threshold": (threshold, None),
}


def called(
    rule: Rule, pool: Pool, metric: str, slowdown: float, comparisons: int, count: int, seed: int
) -> float:
    """Share of comparisons of `count` processes a side in which `rule` sees a difference."""
    draw = np.random.default_rng(seed)
    hits = 0
    for _ in range(comparisons):
        drawn = list(pairs(pool, metric, slowdown, draw, count))
        hits += rule([base for base, _ in drawn], [head for _, head in drawn])
    return hits / comparisons
