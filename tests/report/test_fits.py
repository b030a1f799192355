"""Fits of time against context, on data of known coefficients."""

import numpy as np
import pytest
from scipy import optimize, stats

from bench.report.fits import ContextFit, crossover, fit_context, fit_power

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


@pytest.mark.parametrize(
    ("low", "high", "exponent", "growth"),
    [(-1, 1, 1.9, "linear"), (0, 1, 1.9, "linear"), (1, 2, 1.6, "quadratic"),
     (1, 2, 1.2, "bent line"), (-2, -1, 0.8, "bent line"), (-2, -1, 1.9, "bent line")],
)  # fmt: skip
def test_the_verdict_on_growth(low: float, high: float, exponent: float, growth: str) -> None:
    assert ContextFit(0, 0, 0, low, high, exponent, (), ()).growth == growth


def test_a_power_is_found_in_the_upper_half_alone() -> None:
    T = np.array(LENGTHS, dtype=float)
    values = np.where(T < 2048, 5.0, 3 * T**1.7)
    power = fit_power(LENGTHS, list(values))
    assert power is not None
    assert power.lengths == tuple(LENGTHS[4:])  # five of nine
    assert (power.exponent, power.half) == pytest.approx((1.7, 0), abs=1e-9)
    assert power.at(4096) == pytest.approx(3 * 4096**1.7)


def test_a_power_is_as_scipy_has_it() -> None:
    values = times(1e-3, 2e-6, 3e-10, noise=0.05)
    power = fit_power(LENGTHS[::-1], values[::-1])
    assert power is not None
    found = stats.linregress(np.log(LENGTHS[4:]), np.log(values[4:]))
    half = stats.t.isf(0.025, 3) * found.stderr
    assert (power.exponent, power.half) == pytest.approx((found.slope, half))
    assert power.factor == pytest.approx(np.exp(found.intercept))


def test_the_interval_covers_the_exponent_as_often_as_it_says() -> None:
    hits, runs = 0, 1000
    for seed in range(runs):
        power = fit_power(LENGTHS, times(0, 1e-6, 0, noise=0.05, seed=seed))
        assert power is not None
        hits += abs(power.exponent - 1) <= power.half
    assert stats.binomtest(hits, runs, 0.95).pvalue > 1e-3


def test_what_does_not_grow_has_exponent_zero() -> None:
    power = fit_power(LENGTHS, [4096] * len(LENGTHS))
    assert power is not None
    assert (power.exponent, power.half) == (0, 0)
    assert power.at(1000) == pytest.approx(4096)


def test_a_power_takes_three_points_above_zero() -> None:
    assert fit_power(LENGTHS[:2], [1, 2]) is None
    assert fit_power(LENGTHS[:4], [0, 0, 0, 0]) is None
    power = fit_power(LENGTHS[:4], [1, 2, 4, 8])
    assert power is not None
    assert power.lengths == tuple(LENGTHS[1:4])


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
