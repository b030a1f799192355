"""Change points against definitions, libraries and worked examples."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import pdist

from bench.report.history import divisive
from bench.report.history.divisive import (
    P,
    best_split,
    change_points,
    distance_sums,
    divergences,
    t_test,
)

# Worked examples of Apache Otava's tests (apache/otava, tests/analysis_test.py and
# tests/change_point_divisive_test.py).
HALVED = [1.02, 0.95, 0.99, 1.00, 1.12, 1.00, 1.01, 0.98, 1.01, 0.96,
          0.50, 0.51, 0.48, 0.48, 0.55, 0.50, 0.49, 0.51, 0.50, 0.49]  # fmt: skip
STAIRS = [0.3, 2.4, 1.5, -0.9, -0.5, 99.7, 98.3, 99.1, 149.0, 149.7, 149.5, 149.1, 148.8, 150.0]


def noise(seed: int, count: int, sigma: float = 1.0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0.0, sigma, count)


def places(z: object, **options: float) -> list[int]:
    return [split.place for split in change_points(z, **options)]  # type: ignore[arg-type]


def by_definition(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Q of equations 5 and 6 of Matteson and James, term by term."""
    n, m = len(x), len(y)
    between = sum(abs(a - b) for a in x for b in y) * 2 / (m * n)
    left = sum(abs(a - b) for a, b in itertools.combinations(x, 2)) * 2 / (n * (n - 1))
    right = sum(abs(a - b) for a, b in itertools.combinations(y, 2)) * 2 / (m * (m - 1))
    return float(m * n / (m + n) * (between - left - right))


def test_the_divergence_is_that_of_scipy() -> None:
    z = noise(0, 60)
    sums = distance_sums(z)
    for start, tau, stop in ((0, 20, 60), (10, 12, 40), (5, 50, 60)):
        x, y = z[start:tau], z[tau:stop]
        n, m = len(x), len(y)
        # scipy's is the root of a V-statistic; means over pairs without i = j make it unbiased.
        square = stats.energy_distance(x, y) ** 2 - pdist(x[:, None]).mean() / n
        square -= pdist(y[:, None]).mean() / m
        found = divergences(sums, start, tau, stop)[-1]
        assert found == pytest.approx(square * n * m / (n + m), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_split_is_that_of_an_enumeration(seed: int) -> None:
    z = noise(seed, 14)
    z[9:] += 1.0
    start, stop = 1, 13
    every = {
        (tau, kappa): by_definition(z[start:tau], z[tau:kappa])
        for tau in range(start + 2, stop - 1)
        for kappa in range(tau + 2, stop + 1)
    }
    q, tau, kappa = best_split(distance_sums(z), start, stop)
    assert (tau, kappa) == max(every, key=lambda key: every[key])
    assert q == pytest.approx(max(every.values()))


def test_the_test_is_students() -> None:
    for seed, (n, m) in enumerate(((2, 3), (7, 30), (20, 20))):
        x, y = noise(seed, n), noise(seed + 100, m) + 1
        assert t_test(x, y) == pytest.approx(float(stats.ttest_ind(x, y).pvalue), rel=1e-9)


def test_constant_parts_differ_or_do_not() -> None:
    assert t_test(np.ones(3), np.ones(3)) == 1.0
    assert t_test(np.ones(3), np.full(3, 2.0)) == 0.0
    assert places([1.0] * 5 + [2.0] * 5) == [5]


def test_worked_examples() -> None:
    assert places(HALVED, window=10) == [10]
    assert places(HALVED) == [10]
    assert places(STAIRS, p=0.01) == [5, 8]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_holds_between_its_neighbours(seed: int) -> None:
    z = noise(seed, 180)
    for at in (30, 70, 75, 120):
        z[at:] += 3.0 if at % 4 else -2.0
    found = change_points(z, floor=1.0)
    assert len(found) >= 2
    bounds = [0, *(split.place for split in found), len(z)]
    for split, a, b, c in zip(found, bounds, bounds[1:], bounds[2:], strict=False):
        assert split.place == b
        assert split.p == pytest.approx(float(stats.ttest_ind(z[a:b], z[b:c]).pvalue), rel=1e-6)
        assert split.p <= P
        assert split.step == pytest.approx(z[b:c].mean() - z[a:b].mean())
        assert abs(split.step) > 1.0


def test_merging_tests_both_neighbours_anew() -> None:
    z = np.concatenate([noise(1, 10, 0.1), noise(2, 10, 0.1) + 1, noise(3, 10, 0.1) + 2])
    (first, last) = divisive.merge(z, [10, 14, 20], p=P)
    assert (first.place, last.place) == (10, 20)
    assert first.p == pytest.approx(float(stats.ttest_ind(z[:10], z[10:20]).pvalue), rel=1e-6)
    assert last.p == pytest.approx(float(stats.ttest_ind(z[10:20], z[20:]).pvalue), rel=1e-6)


def test_a_level_that_comes_and_goes_is_seen() -> None:
    for seed in range(20):
        z = noise(seed, 40)
        z[8:20] -= 8.0
        assert places(z) == [8, 20]


def test_a_later_level_does_not_hide_an_earlier_one() -> None:
    z = noise(0, 400, 0.01)
    z[100:] += 0.1
    z[300:] += 5.0
    assert places(z) == [100, 300]


def test_a_step_of_five_percent_is_found() -> None:
    for seed in range(50):
        z = np.log(100.0) + noise(seed, 40, 0.01)
        z[25:] += np.log(1.05)
        (found,) = change_points(z, p=1e-5, floor=np.log(1.02))
        assert abs(found.place - 25) <= 1
        assert np.exp(found.step) == pytest.approx(1.05, abs=0.015)


@pytest.mark.parametrize("commits", [10, 50])
def test_noise_alone_has_a_change_in_fewer_than_one_window_in_a_hundred(commits: int) -> None:
    rounds = 400
    false = sum(bool(change_points(noise(seed, commits))) for seed in range(rounds))
    assert false <= stats.binom.ppf(0.999, rounds, 0.01)


def test_one_outlier_is_no_change() -> None:
    z = noise(0, 30, 0.01)
    z[17] += 1.0
    assert places(z) == []


@pytest.mark.parametrize("count", range(4))
def test_too_few_values_have_no_change(count: int) -> None:
    assert places([1.0, 1.0, 9.0][:count]) == []
