"""The clock and its stop rule."""

import time

import numpy as np
import pytest
import torch
from scipy.stats import binom

from bench.meters.time import Limits, measure, median_interval

CPU = torch.device("cpu")


@pytest.mark.parametrize("n", [6, 7, 10, 17, 50, 101])
def test_median_interval_covers_at_least_95_percent(n: int) -> None:
    low, high = median_interval([float(i) for i in range(n)])
    k = int(low)
    assert high == n - 1 - k
    # The interval misses the median when at most k samples fall on one side of it.
    assert 2 * binom.cdf(k, n, 0.5) <= 0.05
    assert 2 * binom.cdf(k + 1, n, 0.5) > 0.05


@pytest.mark.parametrize("n", [6, 50, 999, 1001, 4000, 50_000])
def test_median_interval_uses_the_ranks_of_scipy(n: int) -> None:
    low, high = median_interval([float(i) for i in range(n)])
    exact = int(binom.ppf(0.025, n, 0.5)) - 1
    # Beyond a thousand samples the ranks are approximated, never to the narrower side.
    assert exact - (n > 1000) <= low <= exact
    assert high == n - 1 - low


def test_median_interval_of_few_samples_is_their_range() -> None:
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_median_interval_holds_the_true_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        low, high = median_interval(list(rng.exponential(size=21)))
        hits += low <= np.log(2) <= high
    assert hits / 2000 > 0.94


def test_measured_time_is_that_of_the_call() -> None:
    limits = Limits(1, 5, 0.0, 1.0, 0.5)
    timing = measure(lambda: time.sleep(0.01), limits, CPU)
    assert 0.01 <= timing.median_s < 0.02
    assert timing.valid
    assert len(timing.samples_s) == 5


def test_before_is_not_timed() -> None:
    limits = Limits(0, 3, 0.0, 1.0, 10.0)
    timing = measure(lambda: None, limits, CPU, before=lambda: time.sleep(0.02))
    assert max(timing.samples_s) < 0.01


def test_cap_makes_the_measurement_invalid_and_says_why() -> None:
    timing = measure(lambda: time.sleep(0.02), Limits(0, 100, 0.0, 0.1, 0.5), CPU)
    assert not timing.valid
    assert timing.reason is not None
    assert "of 100 samples" in timing.reason
    assert 3 <= len(timing.samples_s) < 100


def test_unsteady_samples_are_invalid() -> None:
    waits = iter([0.001, 0.03] * 50)
    timing = measure(lambda: time.sleep(next(waits)), Limits(0, 4, 0.0, 0.2, 0.01), CPU)
    assert not timing.valid
    assert timing.reason is not None
    assert "median known to" in timing.reason


def test_warmup_and_cold_call_are_apart() -> None:
    calls: list[int] = []
    timing = measure(lambda: calls.append(1), Limits(3, 4, 0.0, 1.0, 1e9), CPU)
    assert len(calls) == 1 + 3 + 4
    assert timing.warmup == 3
    assert timing.as_record(8, "tokens")["n"] == 4


def test_wanted_samples_are_taken_but_not_required() -> None:
    limits = Limits(0, 2, 0.0, 0.5, 1e9)
    assert len(measure(lambda: None, limits, CPU, wanted=300).samples_s) == 300
    short = measure(lambda: time.sleep(0.01), Limits(0, 2, 0.0, 0.1, 1e9), CPU, wanted=300)
    assert len(short.samples_s) < 300
    assert short.valid


class FakeDevice:
    """A device whose clock moves 4 ms a call, and which notes when the host waits for it."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.waits = 0

    def call(self) -> None:
        self.now_ms += 4.0

    def event(self, enable_timing: bool) -> "FakeEvent":
        assert enable_timing
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def record(self) -> None:
        self.at_ms = self.device.now_ms

    def synchronize(self) -> None:
        self.device.waits += 1

    def elapsed_time(self, end: "FakeEvent") -> float:
        return end.at_ms - self.at_ms


def test_cuda_is_waited_for_once_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice()
    monkeypatch.setattr(torch.cuda, "Event", device.event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    limits = Limits(2, 16, 0.0, 5.0, 0.01)
    timing = measure(device.call, limits, torch.device("cuda"))
    assert timing.clock == "CUDA events"
    assert timing.cold_s == pytest.approx(0.004)
    # A window of one call, then windows of five: 20 ms.
    assert timing.samples_s == pytest.approx([0.004] * 16)
    assert device.waits == 1 + 1 + 3
    assert device.now_ms == 4.0 * (1 + 2 + 16)


def test_the_record_names_its_clock() -> None:
    timing = measure(lambda: None, Limits(0, 3, 0.0, 1.0, 1e9), CPU)
    assert timing.as_record(1, "tokens")["clock"] == "perf_counter"
