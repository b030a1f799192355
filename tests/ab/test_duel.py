"""How a duel goes on and ends, with processes that are made up."""

from pathlib import Path
from typing import Any

import pytest

from bench.ab import duel as duels
from bench.ab.duel import Contest, Duel
from bench.ab.sample import Sample, Side

SIDES = (Side("base", Path()), Side("head", Path()))


class Machine:
    """Takes pairs at once, and a second of its own clock for each."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, ratio: float, spread: float = 0.0, fails_at: int = -1
    ) -> None:
        self.now, self.pairs = 0.0, 0
        self.ratio, self.spread, self.fails_at = ratio, spread, fails_at
        monkeypatch.setattr(duels, "take_pair", self.take)
        monkeypatch.setattr(duels.time, "monotonic", lambda: self.now)

    def take(self, *_: Any, **__: Any) -> tuple[Sample, Sample]:
        self.now += 1.0
        self.pairs += 1
        base = 1.0 + 0.001 * (self.pairs % 7)
        if self.pairs == self.fails_at:
            return self.timed(base), Sample({"status": "failed", "reason": "crash"}, 1.0)
        change = self.ratio * (1 + 1e-4 * self.pairs + self.spread * (self.pairs % 2))
        return self.timed(base), self.timed(base * change)

    @staticmethod
    def timed(seconds: float) -> Sample:
        return Sample({"status": "ok", "timing": {"samples_s": [seconds] * 5}}, 1.0)


def run(budget: float | None = None, floor: float = 0.0) -> tuple[Any, duels.Ending]:
    return Duel(SIDES, [Contest("cell", ({}, {}))], lambda _: floor, budget=budget).run()


@pytest.mark.parametrize("budget", [11.5, 12.5, 13.5])
def test_a_budget_that_ends_after_a_look_keeps_its_verdict(
    budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(monkeypatch, 0.92, spread=0.2)
    rule, ending = run(budget)
    assert ending.reason == f"the budget of {budget:g} s is spent"
    assert ending.rounds == int(budget) - 1  # a pair warmed up
    (found,) = rule.verdicts().values()
    assert found.verdict == "ambiguous"
    assert 0.92 < found.low < found.ratio < found.high < 1.12


def test_the_ending_names_a_process_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, 1.0, fails_at=4)
    _, ending = run()
    assert ending.reason == "a process failed (cell: head failed: crash)"
    assert ending.rounds == 10


def test_floors_are_asked_for_by_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, 1.05)
    assert {found.verdict for found in run()[0].verdicts().values()} == {"slower"}
    assert {found.verdict for found in run(floor=0.08)[0].verdicts().values()} == {"same"}


def test_where_nothing_is_timed_one_pair_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 1.0)
    machine.timed = lambda _: Sample({"status": "ok", "quality": {}}, 1.0)  # type: ignore[assignment]
    rule, ending = run()
    assert (machine.pairs, ending.rounds, ending.reason) == (1, 0, "nothing that is timed")
    assert rule.verdicts() == {}
