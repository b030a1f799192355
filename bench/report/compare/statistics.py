"""Whether head differs from base, from samples of several processes a side.

The process is the statistical unit: calls inside one agree far better than processes do. Two votes
have to agree before a difference is called:

1. the confidence interval of the ratio head/base by a hierarchical bootstrap over processes and
   calls (Kalibera and Jones 2013, "Rigorous benchmarking in reasonable time", section 9; percentile
   points widened for small samples as in Hesterberg 2015, arXiv:1411.5279, section 4.4.1) lies
   wholly beyond 1 + floor, and
2. a rank test of the processes' medians, exact where they are few and corrected over all metrics
   after Holm (1979), is significant at what this look may spend of `ALPHA`: Mann-Whitney's (1947),
   or Wilcoxon's signed-rank test (1945) where processes ran in pairs.

Samples are times or other figures of which less is better.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Processes = Sequence[Sequence[float]]  # samples of each process
Array = NDArray[np.float64]

EXACT_PAIRS = 50  # pairs up to which all rows of signs are a number that a float holds
EXACT_SIDE = 30  # processes a side up to which all orders of two sides are counted
LOOKS = (10, 14, 20)  # processes a side at which a running comparison is judged
ALPHA = 0.01  # two-sided error of a comparison over all its metrics and looks
LEVEL = 0.95  # of the interval
FLOOR = 0.02  # relative change that nobody is told of
WITHIN = 0.05  # an interval inside this on both sides is called "same"
RESAMPLES = 5000
SEED = 20130619


@dataclass(frozen=True)
class Judgement:
    """A verdict with its numbers; `ratio` is head over base, `why` is one sentence.

    `base` and `head` are what the sides are summed up by, where they were judged by processes.
    """

    verdict: str
    ratio: float
    low: float
    high: float
    p: float
    smallest: float
    n_base: int
    n_head: int
    why: str
    base: float | None = None
    head: float | None = None


def judge(
    pairs: Mapping[str, tuple[Processes, Processes]],
    *,
    floors: Mapping[str, float] | None = None,
    within: float = WITHIN,
    alpha: float = ALPHA,
    paired: bool = False,
) -> dict[str, Judgement]:
    """A verdict for every metric: slower, faster, same or ambiguous.

    `pairs` maps a metric to the samples of base and head. `floors` holds what is known of the noise
    of a metric, `FLOOR` is the least. `paired` says that the processes of both sides ran in turns,
    so that the i-th of one stands beside the i-th of the other and slow drift cancels.
    """
    p = holm({name: _second_vote(base, head, paired) for name, (base, head) in pairs.items()})
    verdicts = {}
    for name, (base, head) in pairs.items():
        floor = max(FLOOR, (floors or {}).get(name, 0.0))
        if reason := _too_few(len(base), len(head), len(pairs), alpha, paired):
            found = _unjudged(base, head, p[name], reason)
        else:
            ratio, low, high = interval = ratio_interval(base, head, paired=paired)
            found = verdict_of(
                interval, p[name], (len(base), len(head)), floor=floor, within=max(within, floor),
                said=f"{ratio:.3f} [{low:.3f}, {high:.3f}]", alpha=alpha,
            )  # fmt: skip
        if base and head:
            found = replace(found, base=typical(base), head=typical(head))
        verdicts[name] = found
    return verdicts


def typical(processes: Processes) -> float:
    """One figure of several processes: the geometric mean of their medians."""
    return math.exp(_medians(processes).mean())


def spent(count: int, before: int = 0, alpha: float = ALPHA, most: int = LOOKS[-1]) -> float:
    """The part of `alpha` that a look at `count` processes a side may use after one at `before`.

    Lan and DeMets (1983), spending function alpha·ln(1 + (e - 1)·t) of the share t of the `most`
    processes that there can be: it gives early looks enough to stop a clear case.
    """

    def upto(processes: int) -> float:
        return alpha * math.log1p((math.e - 1) * min(processes / most, 1.0))

    return upto(count) - upto(before)


def ratio_interval(
    base: Processes, head: Processes, *, level: float = LEVEL, paired: bool = False
) -> tuple[float, float, float]:
    """Ratio head/base of typical processes, and its interval by the hierarchical bootstrap.

    A side is summed up by the geometric mean over processes of their medians.
    """
    if paired and len(base) != len(head):
        raise ValueError(f"{len(base)} and {len(head)} processes are no pairs")
    draw = np.random.default_rng(SEED)
    picks = draw.integers(len(base), size=(RESAMPLES, len(base)))
    others = picks if paired else draw.integers(len(head), size=(RESAMPLES, len(head)))
    logs = _resampled(head, others, draw).mean(1) - _resampled(base, picks, draw).mean(1)
    tail = _widened((1 - level) / 2, min(len(base), len(head)))
    low, high = np.quantile(logs, (tail, 1 - tail))
    ratio = _medians(head).mean() - _medians(base).mean()
    return math.exp(ratio), math.exp(low), math.exp(high)


def _medians(processes: Processes) -> Array:
    """Logarithms of the processes' medians."""
    return np.log([float(np.median(samples)) for samples in processes])


def _resampled(processes: Processes, picks: NDArray[np.int64], draw: np.random.Generator) -> Array:
    """Log medians of resampled processes, (R, n) -> (R, n).

    The median of m draws with replacement is the order statistic at a rank that follows a Beta
    distribution, so it is drawn at once instead of drawing the samples.
    """
    sizes = np.array([len(samples) for samples in processes])
    ordered = np.full((len(processes), sizes.max()), np.nan)
    for row, samples in zip(ordered, processes, strict=True):
        row[: len(samples)] = np.sort(samples)
    size = sizes[picks]
    share = draw.beta((size + 1) / 2, (size + 1) / 2)
    ranks = np.minimum((share * size).astype(np.int64), size - 1)
    return np.asarray(np.log(ordered[picks, ranks]))


def _widened(tail: float, n: int) -> float:
    """The tail that makes a percentile interval of n normal values as wide as Student's.

    The bootstrap divides by n where the standard error divides by n - 1, and knows no t.
    """
    from scipy import stats  # slow to load, and of no use to a table

    if n < 2:
        return 0.0
    return float(stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.isf(tail, n - 1)))


def _second_vote(base: Processes, head: Processes, paired: bool) -> float:
    """Two-sided p of the rank test of the processes' medians."""
    if not base or not head:
        return 1.0
    if not paired:
        return rank_sum_p(_medians(base), _medians(head))
    return signed_rank_p(_medians(head) - _medians(base))


def rank_sum_p(base: Array, head: Array) -> float:
    """Two-sided p of Mann and Whitney's (1947) test, exact where all values differ.

    SciPy's own choice is the normal approximation from nine a side on, whose smallest p at ten a
    side is seventeen times that of the exact test: too large for a few dozen metrics.
    """
    from scipy import stats  # slow to load, and of no use to a table

    values = np.concatenate([base, head])
    exact = np.unique(values).size == values.size and max(base.size, head.size) <= EXACT_SIDE
    method = "exact" if exact else "asymptotic"
    return float(stats.mannwhitneyu(base, head, method=method).pvalue)


def signed_rank_p(changes: Array) -> float:
    """Two-sided p of Wilcoxon's (1945) signed-rank test, exact with ties; zeros drop out.

    Of all 2^n rows of signs, those are counted whose positive ranks add up to each sum. SciPy does
    the same without ties, and else by trying every row, which takes a hundred times as long.
    """
    from scipy import stats

    moved = changes[changes != 0]
    if not moved.size:
        return 1.0
    if moved.size > EXACT_PAIRS:
        return float(stats.wilcoxon(moved).pvalue)
    ranks = np.rint(2 * stats.rankdata(np.abs(moved))).astype(int)  # twice: ties have half ranks
    rows = np.zeros(ranks.sum() + 1)
    rows[0] = 1.0
    for rank in ranks:
        rows[rank:] += rows[:-rank].copy()
    positive = ranks[moved > 0].sum()
    tail = min(rows[: positive + 1].sum(), rows[positive:].sum()) / 2.0**moved.size
    return min(1.0, 2 * float(tail))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's (1979) step-down correction: the chance of one false finding among all."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, (name, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p) - rank) * value))
        corrected[name] = largest
    return corrected


def least_p(n_base: int, n_head: int, paired: bool = False) -> float:
    """The smallest two-sided p of the rank test: one order, or one row of signs, among all."""
    return 2 / 2**n_base if paired else 2 / math.comb(n_base + n_head, n_base)


def least_processes(metrics: int, alpha: float = ALPHA, paired: bool = False) -> int:
    """Processes a side from which on the second vote can be significant at all."""
    return next(n for n in range(2, 100) if metrics * least_p(n, n, paired) <= alpha)


def _too_few(n_base: int, n_head: int, metrics: int, alpha: float, paired: bool) -> str | None:
    if min(n_base, n_head) == 0:
        return "one side has no samples"
    if metrics * least_p(n_base, n_head, paired) <= alpha:
        return None
    least = least_processes(metrics, alpha, paired)
    return (
        f"{n_base} against {n_head} processes can never be significant at {alpha:.2g} "
        f"over {metrics} metrics; {least} against {least} could"
    )


def _unjudged(base: Processes, head: Processes, p: float, reason: str) -> Judgement:
    ratio = math.nan
    if base and head:
        ratio = math.exp(_medians(head).mean() - _medians(base).mean())
    return Judgement(
        "ambiguous", ratio, math.nan, math.nan, p, math.nan, len(base), len(head), reason
    )


def judge_exact(base: float, head: float) -> Judgement:
    """A figure without noise: changed or the same."""
    same = base == head
    why = "is unchanged" if same else f"was {base:.0f} and is {head:.0f}"
    ratio = head / base if base else math.nan
    verdict = "same" if same else "changed"
    return Judgement(
        verdict, ratio, math.nan, math.nan, math.nan, 0.0, 1, 1, why, base=base, head=head
    )


def verdict_of(
    interval: tuple[float, float, float],
    p: float,
    n: tuple[int, int],
    *,
    floor: float,
    within: float,
    said: str,
    alpha: float = ALPHA,
    words: tuple[str, str] = ("slower", "faster"),
) -> Judgement:
    """What an interval of head/base and the p of the second vote amount to.

    `n` is what stands behind base and head, `said` the interval in words, `words` the verdicts for
    more and for less.
    """
    ratio, low, high = interval
    # An effect whose interval, were it as wide as this one, would lie beyond the floor.
    widths = [high / ratio if ratio > 0 else math.inf, ratio / low if low > 0 else math.inf]
    smallest = (1 + floor) * max(widths) - 1
    beyond = low > 1 + floor or high < 1 / (1 + floor)
    if beyond and p <= alpha:
        verdict = words[0] if ratio > 1 else words[1]
        why = f"{said} lies beyond {floor:.1%}, p {p:.1g}"
    elif 1 / (1 + within) < low and high < 1 + within:
        verdict, why = "same", f"{said} lies within {within:.1%}"
    else:
        verdict = "ambiguous"
        why = f"{said} is neither within {within:.1%} nor beyond {floor:.1%}"
        if beyond:
            why = f"{said} lies beyond {floor:.1%}, but p {p:.2g} is above {alpha:.2g}"
        if smallest < math.inf:
            why += f"; the smallest change that could have been found is {smallest:.1%}"
    return Judgement(verdict, ratio, low, high, p, smallest, *n, why)
