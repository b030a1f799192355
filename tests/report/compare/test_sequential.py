"""The rule that judges while samples come: where it looks, and what a look costs."""

import pytest

from bench.report.compare.sequential import Sequential
from bench.report.compare.statistics import LOOKS

SIX = [f"metric {k}" for k in range(6)]


def fed(metrics: list[str], count: int, ratio: float) -> Sequential:
    """A rule that has seen `count` pairs of which head takes `ratio` times as long."""
    rule = Sequential(metrics)
    more(rule, range(count), ratio)
    return rule


def more(rule: Sequential, places: range, ratio: float) -> None:
    for metric in rule.metrics:
        for place in places:
            base = 1.0 + 0.001 * (place % 7)
            rule.add(metric, [base] * 5, [base * ratio * (1 + 0.0001 * place)] * 5)


def test_a_look_that_can_show_nothing_costs_nothing() -> None:
    # Six metrics need 6 * 2 / 2^10 = 0.0117, more than the first look may spend.
    rule = fed(SIX, 10, 1.2)
    rule.look(10)
    assert rule.open == SIX
    assert "10 against 10 processes can never be significant" in rule.verdicts()[SIX[0]].why
    more(rule, range(10, 14), 1.2)
    rule.look(14)
    assert {found.verdict for found in rule.verdicts().values()} == {"slower"}
    whole = fed(SIX, 14, 1.2)
    whole.look(14)
    assert whole.verdicts() == rule.verdicts(), "as if there had been no look before"


@pytest.mark.parametrize("again", [10, 11])
def test_a_look_right_after_another_keeps_what_that_one_said(again: int) -> None:
    rule = fed(["step"], 10, 1.03)
    rule.look(10)
    before = rule.verdicts()
    more(rule, range(10, again), 1.03)
    rule.look(again)
    assert rule.verdicts() == before


def test_what_was_never_looked_at_is_ambiguous() -> None:
    rule = Sequential(["step"])
    rule.look(0)
    assert rule.verdicts()["step"].why == "one side has no samples"


def test_equals_are_the_same_at_the_first_look() -> None:
    rule = fed(["step"], LOOKS[0], 1.0)
    rule.look(LOOKS[0])
    assert rule.decided["step"].verdict == "same"
