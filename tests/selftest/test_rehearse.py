"""False positives and power on pools whose noise and slowdown are known."""

import itertools

import numpy as np
import pytest
from scipy import stats

from bench.report.compare.statistics import ALPHA, LOOKS
from bench.selftest import summary
from bench.selftest.floors import floors, two_stretches
from bench.selftest.pool import SLOWDOWNS
from bench.selftest.rehearse import BLOCK, blocks, pairs, rehearse
from tests.selftest.pools import pool

N = 40  # comparisons
EQUALS = 400


@pytest.mark.parametrize("metrics", [("step",), ("step", "token", "prompt")])
def test_false_positives_of_a_whole_comparison_stay_within_alpha(metrics: tuple[str, ...]) -> None:
    outcome = rehearse(pool(0.03, metrics=metrics, count=800), 0.0, EQUALS, seed=1)
    assert outcome.comparisons == EQUALS
    # What chance alone would exceed in 1 of 1000 at the promised rate: 2.5 % of 400.
    assert outcome.any_called <= stats.binom.ppf(0.999, EQUALS, ALPHA)
    assert set(outcome.verdicts) == set(metrics)


def test_a_slowdown_above_the_noise_is_found_and_called_slower() -> None:
    quiet = pool(0.01)
    outcome = rehearse(quiet, 0.10, N, seed=1)
    assert outcome.share("step", "slower") == 1.0
    assert set(outcome.processes) == {LOOKS[0]}, "a clear case ends at the first look"
    assert rehearse(quiet, 0.05, N, seed=1).share("step", "slower") >= 0.8


def test_a_slowdown_below_the_noise_is_rarely_found() -> None:
    outcome = rehearse(pool(0.3), 0.05, N, seed=1)
    assert outcome.share("step", "slower") < 0.2
    assert LOOKS[-1] in outcome.processes, "what is undecided takes every process"
    assert min(outcome.smallest["step"]) > 0.05, "and it says that so little could not be found"


def test_drift_that_both_of_a_pair_share_costs_no_power() -> None:
    assert rehearse(pool(0.01, drift=0.1), 0.10, N, seed=1).share("step", "slower") >= 0.95


@pytest.mark.parametrize("available", [3, 5, 40])
def test_blocks_stay_together_and_inside(available: int) -> None:
    found = list(blocks(np.random.default_rng(0), available, 1000))
    assert len(found) == 1000
    assert set(found) == set(range(available))
    jumps = sum(b != a + 1 for a, b in itertools.pairwise(found))
    assert jumps <= 1000 / min(BLOCK, available)


def test_either_process_plays_the_head_in_a_comparison_of_equals() -> None:
    made = pool(0.01, count=6)
    heads = {0.0: set(), 0.1: set()}
    for slowdown, seen in heads.items():
        plain = {tuple(pair.plain) for pair in made.of("step", slowdown)}
        for seed in range(20):
            drawn = list(pairs(made, "step", slowdown, np.random.default_rng(seed), 5))
            turned = {tuple(head) in plain for _, head in drawn}
            assert len(turned) == 1, "who plays the head changes between comparisons alone"
            seen |= turned
    assert heads == {0.0: {True, False}, 0.1: {False}}


def test_variation_is_the_noise_that_was_put_in() -> None:
    made = pool(0.02, drift=0.1, count=2000).of("step", 0.0)
    apart, turns = summary.variation(made, summary.REDUCTIONS["median"])
    assert turns == pytest.approx(0.02, rel=0.05)
    assert apart == pytest.approx(np.hypot(0.02, 0.1), rel=0.05)


def test_what_was_injected_is_what_is_measured() -> None:
    made = pool(0.02, count=2000)
    for slowdown in SLOWDOWNS:
        found = summary.measured(made.of("step", slowdown))
        assert found == pytest.approx(slowdown, abs=0.002)


def test_floors_are_the_99th_percentile_of_what_equals_differ_by() -> None:
    found = floors(pool(0.02, drift=0.05, count=2000), 400, 0)
    # The ratio of two geometric means of ten processes each: what drifts cancels in turns alone.
    for kind, cv in (("in turns", 0.02), ("apart", np.hypot(0.02, 0.05))):
        spread = cv * (2 / LOOKS[0]) ** 0.5
        assert found[kind]["step"] == pytest.approx(stats.norm.isf(0.005) * spread, rel=0.25)


@pytest.mark.parametrize("available", [2, 7, 20, 60])
def test_stretches_of_time_do_not_overlap(available: int) -> None:
    draw = np.random.default_rng(0)
    processes = [[float(place)] for place in range(available)]
    seen = set()
    for _ in range(300):
        sides = two_stretches(processes, 10, draw)
        first, second = ([int(p[0]) for p in side] for side in sides)
        for side in (first, second):
            assert side == list(range(side[0], side[0] + min(10, available // 2)))
        assert not set(first) & set(second)
        seen |= {*first, *second}
    assert len(seen) >= available // 2 * 2


def test_floors_hide_what_they_are_of() -> None:
    quiet = pool(0.005)
    assert rehearse(quiet, 0.05, N, 1, {"step": 0.02}).share("step", "slower") == 1.0
    assert rehearse(quiet, 0.05, N, 1, {"step": 0.06}).share("step", "slower") == 0.0
