"""The statistics of a comparison against formulas, enumeration and SciPy."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from bench.report.compare.statistics import (
    ALPHA,
    LOOKS,
    holm,
    judge,
    least_processes,
    ratio_interval,
    signed_rank_p,
    spent,
    verdict_of,
)

Processes = list[np.ndarray]


def processes(
    draw: np.random.Generator, count: int, mean: float, between: float = 0.015, calls: int = 15
) -> Processes:
    """Log-normal process means with log-normal calls inside."""
    levels = mean * np.exp(draw.normal(0, between, count))
    return [level * np.exp(draw.normal(0, 0.002, calls)) for level in levels]


def test_the_interval_is_as_wide_as_students_where_values_are_normal() -> None:
    draw = np.random.default_rng(1)
    ratios = []
    for _ in range(40):
        base, head = processes(draw, 12, 1.0), processes(draw, 12, 1.1)
        _, low, high = ratio_interval(base, head)
        logs = [np.log([np.median(p) for p in side]) for side in (base, head)]
        welch = stats.ttest_ind(logs[1], logs[0]).confidence_interval(0.95)
        ratios.append(math.log(high / low) / (welch.high - welch.low))
    # Student's has 22 degrees of freedom here and ours 11, the price of resampling each side.
    wider = stats.t.isf(0.025, 11) / stats.t.isf(0.025, 22)
    assert np.mean(ratios) == pytest.approx(wider, rel=0.05)


@pytest.mark.parametrize("paired", [False, True])
def test_the_interval_covers_the_truth_as_often_as_it_says(paired: bool) -> None:
    draw = np.random.default_rng(2)
    hits, times = 0, 400
    for _ in range(times):
        drift = np.exp(np.linspace(0, 0.3, 10)) if paired else np.ones(10)
        base = [p * d for p, d in zip(processes(draw, 10, 1.0), drift, strict=True)]
        head = [p * d for p, d in zip(processes(draw, 10, 1.05), drift, strict=True)]
        _, low, high = ratio_interval(base, head, paired=paired)
        hits += low <= 1.05 <= high
        assert not paired or high / low < 1.06  # drift of 30 % does not widen it
    assert stats.binomtest(hits, times, 0.95).pvalue > 1e-3


def test_medians_are_resampled_as_by_drawing_with_replacement() -> None:
    draw = np.random.default_rng(3)
    samples = np.exp(draw.normal(0, 0.1, 9))
    exact = [np.median(draw.choice(samples, 9)) for _ in range(20_000)]
    _, low, high = ratio_interval([samples, samples], [np.ones(9), np.ones(9)], level=0.5)
    # Two equal processes: the mean of two independent resampled medians, quartiles of its inverse
    # (with two processes the tail of 25 % is widened, which is undone here).
    pairs = np.exp(np.log(exact).reshape(2, -1).mean(0))
    tail = stats.norm.cdf(-math.sqrt(2) * stats.t.isf(0.25, 1))
    expected = 1 / np.quantile(pairs, (1 - tail, tail))
    assert (low, high) == pytest.approx(tuple(expected), rel=2e-3)


def test_unequal_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 3 processes are no pairs"):
        ratio_interval([[1.0]] * 2, [[1.0]] * 3, paired=True)


def test_holm_as_in_its_paper() -> None:
    # Holm (1979): the smallest p times m, the next times m - 1, and never less than the one before.
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_the_error_is_spent_once() -> None:
    parts = [spent(n, before) for before, n in itertools.pairwise((0, *LOOKS))]
    assert sum(parts) == pytest.approx(ALPHA)
    assert parts[0] == pytest.approx(ALPHA * math.log(1 + (math.e - 1) * 0.5))
    assert all(part > 0 for part in parts)


def test_the_least_number_of_processes() -> None:
    # Two-sided 0.002 needs 7 against 7, as 2 / C(14, 7) = 0.00058 and 2 / C(12, 6) = 0.0022.
    assert least_processes(1, 0.002) == 7
    exact = stats.mannwhitneyu(range(6), range(10, 16), method="exact").pvalue
    assert exact == pytest.approx(2 / math.comb(12, 6))


def test_ten_a_side_can_show_a_change_of_one_among_a_hundred_metrics() -> None:
    draw = np.random.default_rng(9)
    clear = processes(draw, 10, 1.0), processes(draw, 10, 2.0)
    found = judge({f"step {k}": clear for k in range(100)})
    assert {judgement.verdict for judgement in found.values()} == {"slower"}
    # Of all orders of ten and ten values, two are as clear as this one.
    assert found["step 0"].p == pytest.approx(100 * 2 / math.comb(20, 10))


def test_too_few_processes_are_never_judged() -> None:
    one = [[1.0] * 9] * 4
    (found,) = judge({"step": (one, [[9.0] * 9] * 4)}).values()
    assert found.verdict == "ambiguous"
    assert "4 against 4" in found.why
    assert "5 against 5 could" in found.why
    (none,) = judge({"step": ([], one)}).values()
    assert (none.verdict, none.why) == ("ambiguous", "one side has no samples")


@pytest.mark.parametrize(
    ("ratio", "noise", "verdict"),
    [
        (1.0, 0.01, "same"),
        (1.1, 0.01, "slower"),
        (1 / 1.1, 0.01, "faster"),
        (1.0, 0.2, "ambiguous"),
    ],
)
def test_verdicts(ratio: float, noise: float, verdict: str) -> None:
    draw = np.random.default_rng(4)
    pair = processes(draw, 14, 1.0, noise), processes(draw, 14, ratio, noise)
    (found,) = judge({"step": pair}).values()
    assert found.verdict == verdict
    assert found.low < found.ratio < found.high
    assert found.smallest > 0.02
    assert found.head / found.base == pytest.approx(found.ratio)  # type: ignore[operator]


def test_a_floor_hides_what_noise_can_do() -> None:
    draw = np.random.default_rng(5)
    pair = processes(draw, 14, 1.0, 0.005), processes(draw, 14, 1.04, 0.005)
    assert judge({"step": pair})["step"].verdict == "slower"
    assert judge({"step": pair}, floors={"step": 0.06})["step"].verdict == "same"


def test_many_metrics_are_corrected_for() -> None:
    draw = np.random.default_rng(6)
    pair = processes(draw, 6, 1.0, 0.001), processes(draw, 6, 1.1, 0.001)
    assert judge({"step": pair})["step"].verdict == "slower"
    several = judge({f"step {k}": pair for k in range(6)})
    assert {found.verdict for found in several.values()} == {"ambiguous"}


def test_pairs_are_judged_by_their_differences() -> None:
    draw = np.random.default_rng(8)
    drift = np.exp(draw.normal(0, 0.1, 14))
    base = [p * d for p, d in zip(processes(draw, 14, 1.0, 0.005), drift, strict=True)]
    head = [p * d for p, d in zip(processes(draw, 14, 1.05, 0.005), drift, strict=True)]
    assert judge({"step": (base, head)})["step"].verdict == "ambiguous"
    found = judge({"step": (base, head)}, paired=True)["step"]
    assert found.verdict == "slower"
    logs = [np.log([np.median(p) for p in side]) for side in (head, base)]
    assert found.p == pytest.approx(stats.wilcoxon(logs[0], logs[1], method="exact").pvalue)
    assert least_processes(1, 0.002, paired=True) == 10  # 2 / 2^10 = 0.00195
    assert judge({"step": (base, base)}, paired=True)["step"].verdict == "same"


@pytest.mark.parametrize("n", [1, 2, 5, 10, 14, 20, 50, 60])
def test_the_signed_rank_test_is_scipys(n: int) -> None:
    changes = np.random.default_rng(n).normal(0.3, 1, n)
    assert signed_rank_p(changes) == pytest.approx(stats.wilcoxon(changes).pvalue, rel=1e-12)


@pytest.mark.parametrize("n", [4, 8, 11])
def test_with_ties_and_zeros_it_is_that_of_every_row_of_signs(n: int) -> None:
    changes = np.repeat(np.random.default_rng(n).normal(0.3, 1, n), 2)[:n]
    changes[0] = 0.0
    every = stats.wilcoxon(changes, method=stats.PermutationMethod()).pvalue
    assert signed_rank_p(changes) == pytest.approx(every, rel=1e-12)


def test_no_change_at_all_is_none() -> None:
    assert signed_rank_p(np.zeros(10)) == 1.0


@pytest.mark.parametrize(
    ("interval", "p", "verdict", "words"),
    [
        ((1.10, 1.05, 1.15), 0.001, "more", "lies beyond 2.0%, p 0.001"),
        ((0.90, 0.85, 0.95), 0.001, "less", "lies beyond 2.0%, p 0.001"),
        ((1.10, 1.05, 1.15), 0.02, "ambiguous", "but p 0.02 is above 0.01; the smallest change"),
        ((1.01, 0.98, 1.04), 0.001, "same", "lies within 5.0%"),
        ((1.02, 0.98, 1.06), 0.001, "ambiguous", "nor beyond 2.0%; the smallest change"),
        ((0.0, -1.0, 1.0), 0.9, "ambiguous", "nor beyond 2.0%"),
    ],
)
def test_what_an_interval_and_p_amount_to(
    interval: tuple[float, float, float], p: float, verdict: str, words: str
) -> None:
    found = verdict_of(interval, p, (3, 4), floor=0.02, within=0.05, said="it",
                       words=("more", "less"))  # fmt: skip
    assert found.verdict == verdict
    assert words in found.why
    assert (found.n_base, found.n_head) == (3, 4)
    assert ("smallest" in found.why) == (verdict == "ambiguous" and interval[1] > 0)
