"""Percentiles: which can be told from how many samples."""

import numpy as np
import pytest
from scipy.stats import binom

from bench.meters.latency import first_token, percentiles, quantile, samples_for
from bench.meters.time import Timing


@pytest.mark.parametrize(("share", "count"), [(0.5, 5), (0.95, 59), (0.99, 299)])
def test_samples_that_determine_a_percentile(share: float, count: int) -> None:
    """With `count` samples one at least lies beyond the percentile, at 95 %."""
    assert samples_for(share) == count
    beyond = [binom.sf(0, n, 1 - share) for n in (count - 1, count)]
    assert beyond[0] < 0.95 <= beyond[1]


def test_percentiles_without_enough_samples_are_missing() -> None:
    samples = [float(i) for i in range(100)]
    assert percentiles(samples) == pytest.approx(
        {"p50_s": 49.5, "p95_s": 94.05, "p99_s": None}, nan_ok=True
    )
    assert percentiles([1.0]) == {"p50_s": None, "p95_s": None, "p99_s": None}


def test_a_quantile_is_that_of_the_distribution() -> None:
    samples = list(np.random.default_rng(0).exponential(size=100_000))
    assert quantile(samples, 0.99) == pytest.approx(-np.log(0.01), rel=0.03)


def test_the_first_token_has_its_own_samples_and_interval() -> None:
    samples = [0.1, 0.3, 0.2, 0.25, 0.15, 0.2, 0.21]
    found = first_token(Timing(0.5, 1, samples, True, None, "perf_counter"), 128)
    assert found["prompt"] == 128
    assert found["ttft_s"] == 0.2
    assert (found["ttft_ci_low_s"], found["ttft_ci_high_s"]) == (0.1, 0.3)
    assert found["ttft_samples_s"] == samples
