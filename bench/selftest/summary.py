"""What the selftest found, as sheets."""

import importlib.util
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

from bench.report.compare.statistics import FLOOR, LOOKS
from bench.report.sheet import Entry, Sheet
from bench.selftest import quality
from bench.selftest.pool import SLOWDOWNS, Pair, Pool
from bench.selftest.rehearse import Rehearsal
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
    for metric in pool.pairs:
        pairs = pool.of(metric, 0.0)
        for name, reduce in REDUCTIONS.items():
            apart, turns = variation(pairs, reduce)
            head = [Entry(metric), Entry(name), Entry(len(pairs))]
            rows.append(
                [
                    *head,
                    percent(apart),
                    percent(turns),
                    Entry(apart / turns, f"{apart / turns:.1f}"),
                ]
            )
    return Sheet(
        "Noise between fresh processes",
        ["metric", "summed up by", "pairs", "CV of processes", "CV in turns", "gain"],
        rows,
        [
            "CV: coefficient of variation. In turns: of the ratio of two processes that alternate, "
            "over the root of two, so that it stands beside that of processes each on its own."
        ],
    )


def variation(
    pairs: Sequence[Pair], reduce: Callable[[Sequence[float]], float]
) -> tuple[float, float]:
    """Coefficient of variation of processes alone, and of what turns leave of it."""
    logs = np.log([[reduce(pair.plain), reduce(pair.other)] for pair in pairs])
    return float(logs[:, 0].std(ddof=1)), float((logs[:, 1] - logs[:, 0]).std(ddof=1) / 2**0.5)


def measured(pairs: Sequence[Pair]) -> float:
    """The median relative change over pairs: what a slowdown that was injected comes to."""
    changes = [np.median(pair.other) / np.median(pair.plain) - 1 for pair in pairs]
    return float(np.median(changes))


def loud(pool: Pool, limit: float) -> dict[str, float]:
    """Metrics whose plain processes vary by more than `limit` in turns, by the medians."""
    median = REDUCTIONS["median"]
    found = {metric: variation(pool.of(metric, 0.0), median)[1] for metric in pool.pairs}
    return {metric: value for metric, value in found.items() if value > limit}


def floors(found: Mapping[str, Mapping[str, float]]) -> Sheet:
    """What equals differ by, which later comparisons on this machine do not call."""
    metrics = dict.fromkeys(metric for floors in found.values() for metric in floors)
    rows = [
        [Entry(metric), *(percent(floors[metric]) for floors in found.values())]
        for metric in metrics
    ]
    return Sheet(
        f"What 1 in 100 comparisons of equals differs by, {LOOKS[0]} processes a side",
        ["metric", *found],
        rows,
        [f"The floor of later comparisons on this machine, where it is more than {FLOOR:.0%}."],
    )


def power(pool: Pool, outcomes: Sequence[Rehearsal], seconds_a_pair: float) -> Sheet:
    """False positives and power of the whole sequential rule."""
    rows = []
    for outcome in outcomes:
        head, n = kind(outcome.slowdown), outcome.comparisons
        cost = statistics.fmean(outcome.processes) * seconds_a_pair
        together = [share(outcome.any_called, n), Entry(""), Entry(""), Entry("")]
        if len(outcome.verdicts) > 1:
            rows.append([head, Entry("any metric"), Entry(""), Entry(n), *together, seconds(cost)])
        for metric, verdicts in outcome.verdicts.items():
            changed = verdicts["slower"] + verdicts["faster"]
            seen = measured(pool.of(metric, outcome.slowdown))
            counts = [verdicts["slower"], verdicts["same"], verdicts["ambiguous"]]
            cells = [share(changed, n), *(percent(count / n) for count in counts)]
            row = [head, Entry(metric), Entry(seen, f"{seen:+.1%}"), Entry(n), *cells]
            rows.append([*row, seconds(cost)])
    available = min(len(pool.of(metric, 0.0)) for metric in pool.pairs)
    return Sheet(
        "The sequential rule on comparisons drawn from the pool",
        ["head", "metric", "measured", "comparisons", "called, 95 % interval", "slower", "same",
         "ambiguous", "machine time s"],
        rows,
        [
            f"Looks at {', '.join(map(str, LOOKS))} processes a side; machine time of one metric. "
            "Measured: the median change over all pairs of the pool.",
            f"Equals are judged with a floor of {FLOOR:.0%}, the others with those above.",
            "The intervals (Clopper and Pearson) are of the drawing alone: comparisons share "
            f"processes, of which the pool has {available} pairs of a kind.",
        ],
    )  # fmt: skip


def rivals(pool: Pool, comparisons: int, seed: int) -> Sheet:
    """Other tools' rules on the same samples, at one look with the most processes of ours."""
    rows, notes = [], []
    for name, (rule, library) in RULES.items():
        if library and importlib.util.find_spec(library) is None:
            notes.append(f"{name}: not shown, for {library} is not installed (extra dev).")
            continue
        for metric in pool.pairs:
            shares = [
                percent(called(rule, pool, metric, slowdown, comparisons, LOOKS[-1], seed))
                for slowdown in SLOWDOWNS
            ]
            rows.append([Entry(name), Entry(metric), *shares])
    return Sheet(
        f"Other rules on the same samples, {LOOKS[-1]} processes a side, {comparisons} comparisons",
        ["rule", "metric", *(f"{kind(slowdown)} called" for slowdown in SLOWDOWNS)],
        rows,
        notes,
    )


def scores(found: quality.Scores, name: str, comparisons: int, seed: int) -> Sheet:
    """False positives and power of the verdict on scores."""
    plain = sum(found.plain.values())
    rows = [
        [Entry(head), Entry(f"{name} · score"),
         percent(sum(other.values()) / plain - 1),
         percent(quality.rehearse(found, other, comparisons, seed))]
        for head, other in (
            ("one thread instead of all", found.rounding),
            (f"{quality.LESS:.0%} of the training items", found.less),
        )
    ]  # fmt: skip
    seeds = len(found.plain)
    return Sheet(
        f"Scores: {comparisons} comparisons of {quality.SEEDS} of {seeds} seeds",
        ["head", "metric", "mean change", "called"],
        rows,
        [
            f"{found.repeated} of {seeds} seeds gave the same score to the last digit when run "
            f"twice. {found.seconds:.0f} s of training and scoring."
        ],
    )


def share(count: int, total: int) -> Entry:
    """A share with its exact (Clopper and Pearson 1934) interval."""
    interval = stats.binomtest(count, total).proportion_ci(0.95)
    text = f"{count / total:.1%} [{interval.low:.1%}, {interval.high:.1%}]"
    return Entry(count / total, text)


def percent(value: float) -> Entry:
    """A share as percent."""
    return Entry(value, f"{value:.1%}")


def seconds(value: float) -> Entry:
    """Whole seconds."""
    return Entry(value, f"{value:.0f}")


def kind(slowdown: float) -> Entry:
    """What a comparison was of: equals, or a head slower by a share."""
    return Entry("A/A" if slowdown == 0 else f"{slowdown:.0%} slower")
