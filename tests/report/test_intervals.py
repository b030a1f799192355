"""Whether 95 % intervals hold the truth in 95 % of the cases, from tables whose truth is known."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, roots_hermitenorm

from bench.report.intervals import Part, crossed, half_width, mean_of, p_value, quantile, residual

TABLES, ITEMS = 2000, 60
# Shares of seeds, items and the rest in the variance of the mean of all scores.
SHARES = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.9, 0.1, 0), (0.5, 0.5, 0), (0.1, 0.9, 0),
          (0.3, 0.3, 0.4), (0.05, 0.45, 0.5)]  # fmt: skip
Array = NDArray[np.float64]


def tables(seeds: int, shares: tuple[float, float, float]) -> Array:
    """Scores (tables, S, N) of mean zero, whose mean over a table has variance one."""
    draw = np.random.default_rng([seeds, *(int(100 * share) for share in shares)])
    sizes = (seeds, 1), (1, ITEMS), (seeds, ITEMS)
    return sum(
        (
            math.sqrt(share * math.prod(size)) * draw.normal(size=(TABLES, *size))
            for share, size in zip(shares, sizes, strict=True)
        ),
        np.zeros((TABLES, seeds, ITEMS)),
    )


def coverage(scores: Array, truth: float = 0.0) -> float:
    inside = abs(scores.mean((-2, -1)) - truth) <= half_width(crossed(scores))
    return float(np.mean(inside))


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize(("seeds", "low", "high"), [(3, 0.93, 0.985), (5, 0.93, 0.975),
                                                    (10, 0.93, 0.97)])  # fmt: skip
def test_intervals_cover_what_they_say(
    seeds: int, low: float, high: float, shares: tuple[float, float, float]
) -> None:
    assert low < coverage(tables(seeds, shares)) < high


def test_two_seeds_are_covered_too_though_provisional() -> None:
    assert all(0.92 < coverage(tables(2, shares)) < 0.99 for shares in SHARES)


def satterthwaite(parts: tuple[Part, ...]) -> Array:
    total = sum(np.asarray(p.variance) for p in parts)
    df = total**2 / sum(np.asarray(p.variance) ** 2 / p.df for p in parts)
    return np.asarray(stats.t.ppf(0.975, df) * np.sqrt(total))


def test_satterthwaite_would_cover_less() -> None:
    """Why the degrees of freedom are not his: what the module says of two and three seeds."""
    for seeds, most in ((2, 0.9), (3, 0.94)):
        scores = tables(seeds, (0.9, 0.1, 0))
        inside = abs(scores.mean((-2, -1))) <= satterthwaite(crossed(scores))
        assert np.mean(inside) < most < coverage(scores)


def test_seeds_alone_would_not_do_where_items_are_few() -> None:
    scores = tables(5, (0.1, 0.9, 0))
    seeds, _ = crossed(scores)
    assert np.mean(abs(scores.mean((-2, -1))) <= half_width([seeds])) < 0.7


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_accuracies_are_covered(seeds: int) -> None:
    """Hits of 0 and 1: harder items and better seeds in the logit, the truth by quadrature."""
    draw = np.random.default_rng(seeds)
    of_seed, of_item = 0.2, 1.5
    logit = (1.5 + of_seed * draw.normal(size=(TABLES, seeds, 1))
             + of_item * draw.normal(size=(TABLES, 1, 180)))  # fmt: skip
    hits = (draw.random(logit.shape) < expit(logit)).astype(np.float64)
    nodes, weights = roots_hermitenorm(60)
    truth = weights @ expit(1.5 + math.hypot(of_seed, of_item) * nodes) / weights.sum()
    assert 0.93 < coverage(hits, truth) < 0.98


def test_the_parts_are_what_makes_the_mean_vary() -> None:
    """Unbiased: on average as large as the variance that was put in, each."""
    seeds, items = crossed(tables(5, (0.5, 0.4, 0.1)))
    assert np.mean(seeds.variance) == pytest.approx(0.5 + 0.1, rel=0.05)
    assert np.mean(items.variance) == pytest.approx(0.4, rel=0.05)


def test_mean_squares_are_those_of_an_analysis_of_variance() -> None:
    """A table of 3 x 4 by hand: sums of squares add up to the total."""
    scores = np.array([[1.0, 2.0, 4.0, 1.0], [2.0, 2.0, 5.0, 3.0], [0.0, 5.0, 4.0, 3.0]])
    mean = scores.mean()
    of_seeds = 4 * ((scores.mean(1) - mean) ** 2).sum()
    of_items = 3 * ((scores.mean(0) - mean) ** 2).sum()
    rest = ((scores - mean) ** 2).sum() - of_seeds - of_items
    assert residual(scores) == pytest.approx(rest / 6)
    seeds, items = crossed(scores)
    assert seeds.variance == pytest.approx(of_seeds / 2 / 12)
    assert items.variance == pytest.approx((of_items / 3 - rest / 6) / 12)
    assert (seeds.df, items.df) == (2, 3)


def cases() -> Iterator[tuple[float, list[Part]]]:
    draw = np.random.default_rng(7)
    for _ in range(20):
        parts = [Part(float(draw.exponential()), float(df)) for df in draw.integers(1, 200, 2)]
        yield float(draw.normal(scale=4)), parts


def test_p_is_the_level_whose_interval_just_reaches_zero() -> None:
    for value, parts in cases():
        assert half_width(parts, p_value(value, parts)) == pytest.approx(abs(value), rel=1e-6)


def test_one_part_is_students_t() -> None:
    values = [1.0, 1.5, 1.7, 2.9]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert half_width([mean_of(values)]) == pytest.approx((high - low) / 2)
    expected = stats.ttest_1samp(values, 0.0).pvalue
    assert p_value(float(np.mean(values)), [mean_of(values)]) == pytest.approx(expected)


def test_parts_of_equal_freedom_are_one_part() -> None:
    assert half_width([Part(1.0, 7), Part(3.0, 7)]) == pytest.approx(half_width([Part(4.0, 7)]))


def test_without_variance_there_is_no_width() -> None:
    assert half_width([Part(0.0, 2), Part(0.0, 9)]) == 0.0
    assert p_value(0.1, [Part(0.0, 2)]) == 0.0
    assert p_value(0.0, [Part(0.0, 2)]) == p_value(3.0, []) == 1.0


def test_from_a_hundred_on_t_is_normal() -> None:
    assert quantile(100) == pytest.approx(stats.norm.ppf(0.975))
    assert quantile(99) == pytest.approx(stats.t.ppf(0.975, 99))
    assert quantile(99) / quantile(100) < 1.013
