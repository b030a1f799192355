"""Fits of time against context, on data of known coefficients."""

import numpy as np
import pytest
from scipy import optimize, stats

from bench.report.fits import crossover, fit_context

LENGTHS = [128 * 2**k for k in range(9)]


def times(a: float, b: float, c: float, noise: float = 0.0, seed: int = 0) -> list[float]:
    draw = np.random.default_rng(seed)
    T = np.array(LENGTHS, dtype=float)
    return list((a + b * T + c * T**2) * np.exp(draw.normal(0, noise, len(T))))


def test_coefficients_are_found() -> None:
    fit = fit_context(LENGTHS, times(1e-3, 2e-6, 3e-10))
    assert fit is not None
    assert (fit.a, fit.b, fit.c) == pytest.approx((1e-3, 2e-6, 3e-10), rel=1e-6)
    assert fit.at(1000) == pytest.approx(1e-3 + 2e-3 + 3e-4)


def test_the_same_as_scipys_fit() -> None:
    seconds = times(1e-3, 2e-6, 3e-10, noise=0.05)
    fit = fit_context(LENGTHS, seconds)
    assert fit is not None
    found, covariance = optimize.curve_fit(
        lambda T, a, b, c: a * 1e-3 + b * 1e-6 * T + c * 1e-10 * T**2,
        np.array(LENGTHS, dtype=float), seconds, p0=[1, 2, 3], sigma=seconds,
    )  # fmt: skip
    assert (fit.a, fit.b, fit.c) == pytest.approx(found * [1e-3, 1e-6, 1e-10], rel=1e-4)
    half = stats.t.isf(0.025, 6) * covariance[2, 2] ** 0.5 * 1e-10
    assert (fit.c_high - fit.c_low) / 2 == pytest.approx(half, rel=1e-3)


def test_the_interval_covers_c_as_often_as_it_says() -> None:
    hits, runs = 0, 400
    for seed in range(runs):
        fit = fit_context(LENGTHS, times(1e-3, 2e-6, 3e-10, noise=0.03, seed=seed))
        assert fit is not None
        hits += fit.c_low <= 3e-10 <= fit.c_high
    assert stats.binomtest(hits, runs, 0.95).pvalue > 1e-3


def test_the_exponent_tells_linear_from_quadratic() -> None:
    linear, square = (
        fit_context(LENGTHS, times(0, 1e-6, 0)),
        fit_context(LENGTHS, times(0, 0, 1e-9)),
    )
    assert linear is not None
    assert square is not None
    assert linear.exponent == pytest.approx(1.0)
    assert square.exponent == pytest.approx(2.0)


def test_three_lengths_are_no_fit() -> None:
    assert fit_context(LENGTHS[:3], [1, 2, 3]) is None


def test_crossover() -> None:
    attention = fit_context(LENGTHS, times(0, 1e-6, 1e-9))
    recurrence = fit_context(LENGTHS, times(0, 5e-6, 0))
    assert attention is not None
    assert recurrence is not None
    assert crossover(attention, recurrence) == pytest.approx(4000)  # 1e-6 + 1e-9 T = 5e-6
    slower = fit_context(LENGTHS, times(1, 5e-6, 0))
    assert slower is not None
    assert crossover(slower, recurrence) is None
    short = fit_context(LENGTHS[:4], times(0, 1e-6, 1e-9)[:4])
    assert short is not None
    assert crossover(short, recurrence) is None  # it crosses beyond what was measured
