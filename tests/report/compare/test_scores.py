"""Verdicts on scores of paired seeds, against SciPy's test and Holm's correction."""

import numpy as np
import pytest
from scipy import stats

from bench.report.compare.scores import judge_paired, judge_scores


def test_scores_of_paired_seeds_as_students_test() -> None:
    draw = np.random.default_rng(7)
    base = {seed: 2.0 + draw.normal(0, 0.05) for seed in range(6)}
    head = {seed: value + 0.1 + draw.normal(0, 0.01) for seed, value in base.items()}
    found = judge_paired(base, head, better="lower")
    assert found.verdict == "worse"
    assert judge_paired(base, head, better="higher").verdict == "better"
    expected = stats.ttest_rel(list(head.values()), list(base.values()))
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.99)
    mean = np.mean(list(base.values()))
    assert (found.low, found.high) == pytest.approx(
        (1 + interval.low / mean, 1 + interval.high / mean)
    )


def test_equal_scores_are_the_same_at_one_seed() -> None:
    assert judge_paired({0: 1.7}, {0: 1.7}, better="lower").verdict == "same"
    changed = judge_paired({0: 1.7}, {0: 1.8}, better="lower")
    assert (changed.verdict, changed.n_base) == ("ambiguous", 1)
    assert judge_paired({0: 1.7}, {1: 1.7}, better="lower").why == "no seed was run on both sides"


def test_many_scores_are_corrected_for() -> None:
    base = {seed: 2.0 + 0.1 * seed for seed in range(5)}
    head = {seed: value + 0.05 + 0.01 * (seed - 2) for seed, value in base.items()}
    alone = judge_scores({"bits": (base, head, "lower")})["bits"]
    assert alone.verdict == "worse"
    assert (alone.base, alone.head) == pytest.approx((2.2, 2.25))
    many = judge_scores({f"bits {k}": (base, head, "lower") for k in range(40)})
    assert {found.verdict for found in many.values()} == {"ambiguous"}
    assert many["bits 0"].p == pytest.approx(40 * alone.p)
    assert "is above 0.01" in many["bits 0"].why
