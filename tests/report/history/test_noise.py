"""The noise from commit to commit, against simulation and textbook formulas."""

import numpy as np
import pytest
from scipy import stats

from bench.report.history.noise import noise


def drawn(count: int) -> np.ndarray:
    """Series of 12 normal values with sigma 2, (count, 12)."""
    return np.random.default_rng(0).normal(5.0, 2.0, (count, 12))


def test_the_variance_is_unbiased_and_as_sure_as_it_says() -> None:
    found = [noise([row[:7], row[7:]]) for row in drawn(4000)]
    squares = np.array([one.s**2 for one in found])
    assert squares.mean() == pytest.approx(4.0, rel=0.03)
    assert squares.var() == pytest.approx(2 * 4.0**2 / found[0].df, rel=0.1)
    assert found[0].steps == 10


def test_a_drift_or_a_change_between_stretches_is_no_noise() -> None:
    row = drawn(1)[0]
    plain = noise([row[:6], row[6:]])
    changed = noise([row[:6], row[6:] + 100.0])
    assert changed.s == pytest.approx(plain.s)
    assert noise([row + 0.1 * np.arange(12)]).s == pytest.approx(noise([row]).s, rel=0.1)


def test_intervals_cover() -> None:
    rows = np.random.default_rng(1).normal(0.0, 1.0, (4000, 16))
    inside, rejected = 0, 0
    for row in rows:
        step = row[14:].mean() - row[12:14].mean()
        p, half = noise([row[:12]]).difference(step, 2, 2, 0.95)
        inside += abs(step) <= half
        rejected += p <= 0.01
    assert inside / len(rows) == pytest.approx(0.95, abs=0.012)
    assert stats.binomtest(rejected, len(rows), 0.01).pvalue > 1e-4


def test_no_noise_at_all() -> None:
    still = noise([np.ones(7)])
    assert still.difference(0.0, 1, 1, 0.95) == (1.0, 0.0)
    assert still.difference(0.1, 1, 1, 0.95) == (0.0, 0.0)
    assert noise([np.ones(1)]).steps == 0
