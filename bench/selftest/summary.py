"""What the selftest found, as sheets."""

import statistics
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from bench.report.compare.statistics import LOOKS, ratio_interval
from bench.report.sheet import Entry, Sheet
from bench.selftest.pool import Pool, Process
from bench.selftest.rehearse import Outcome
from bench.selftest.rivals import RULES, called

REDUCTIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "median": lambda samples: float(np.median(samples)),
    "10th percentile": lambda samples: float(np.quantile(samples, 0.1)),
    "minimum": min,
    "mean": statistics.fmean,
}


def noise(pool: Pool) -> Sheet:
    """How far fresh processes of the plain step lie apart, by what sums a process up."""
    rows = []
    for metric in pool.processes:
        plain = [process for found in pool.of(metric, 0.0) for process in found]
        cells = [percent(_variation(plain, reduce)) for reduce in REDUCTIONS.values()]
        rows.append([Entry(metric), Entry(len(plain)), *cells, percent(_gain(pool, metric))])
    heads = [f"CV of {name}" for name in REDUCTIONS]
    return Sheet(
        "Noise between fresh processes",
        ["metric", "processes", *heads, "interval in turns / apart"],
        rows,
        [
            "CV: coefficient of variation. The last column is the width of the ratio's interval "
            "when processes that ran side by side are kept together, over the width when not."
        ],
    )


def loud(pool: Pool, limit: float) -> dict[str, float]:
    """Metrics whose plain processes vary by more than `limit`, by the medians."""
    found = {}
    for metric in pool.processes:
        plain = [process for round in pool.of(metric, 0.0) for process in round]
        found[metric] = _variation(plain, REDUCTIONS["median"])
    return {metric: value for metric, value in found.items() if value > limit}


def _variation(processes: Sequence[Process], reduce: Callable[[Sequence[float]], float]) -> float:
    values = [reduce(process.samples) for process in processes]
    return statistics.stdev(values) / statistics.fmean(values)


def _gain(pool: Pool, metric: str) -> float:
    """Width of the interval with pairs over that without, on A/A."""
    rounds = pool.of(metric, 0.0)
    base, head = ([found[place].samples for found in rounds] for place in (0, 1))
    widths = []
    for paired in (True, False):
        _, low, high = ratio_interval(base, head, paired=paired)
        widths.append(high - low)
    return widths[0] / widths[1]


def power(outcomes: Sequence[Outcome], seconds_a_process: float) -> Sheet:
    """False positives and power of the whole sequential rule."""
    rows = []
    for outcome in outcomes:
        n = outcome.comparisons
        cost = 2 * statistics.fmean(outcome.processes) * seconds_a_process
        together = [share(outcome.any_called, n), Entry(""), Entry(""), Entry("")]
        if len(outcome.verdicts) > 1:
            rows.append([_kind(outcome), Entry("any metric"), Entry(n), *together, seconds(cost)])
        for metric, verdicts in outcome.verdicts.items():
            changed = verdicts["slower"] + verdicts["faster"]
            counts = [verdicts["slower"], verdicts["same"], verdicts["ambiguous"]]
            cells = [share(changed, n), *(percent(count / n) for count in counts)]
            rows.append([_kind(outcome), Entry(metric), Entry(n), *cells, seconds(cost)])
    return Sheet(
        "The sequential rule on comparisons drawn from the pool",
        ["head", "metric", "comparisons", "called, 95 % interval", "slower", "same", "ambiguous",
         "machine time s"],
        rows,
        [f"Looks at {', '.join(map(str, LOOKS))} processes a side; machine time of one metric."],
    )  # fmt: skip


def rivals(pool: Pool, comparisons: int, seed: int) -> Sheet:
    """Other tools' rules on the same samples, at one look with the most processes of ours."""
    rows = []
    for name, rule in RULES.items():
        for metric in pool.processes:
            shares = [
                percent(called(rule, pool, metric, slowdown, comparisons, LOOKS[-1], seed))
                for slowdown in (0.0, 0.05, 0.10)
            ]
            rows.append([Entry(name), Entry(metric), *shares])
    return Sheet(
        f"Other rules on the same samples, {LOOKS[-1]} processes a side, {comparisons} comparisons",
        ["rule", "metric", "A/A called", "5 % called", "10 % called"],
        rows,
    )


def share(count: int, total: int) -> Entry:
    """A share with its exact (Clopper and Pearson 1934) interval."""
    interval = stats.binomtest(count, total).proportion_ci(0.95)
    text = f"{count / total:.1%} [{interval.low:.1%}, {interval.high:.1%}]"
    return Entry(count / total, text)


def percent(value: float) -> Entry:
    return Entry(value, f"{value:.1%}")


def seconds(value: float) -> Entry:
    return Entry(value, f"{value:.0f}")


def _kind(outcome: Outcome) -> Entry:
    return Entry("A/A" if outcome.slowdown == 0 else f"{outcome.slowdown:.0%} slower")
