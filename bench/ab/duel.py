"""Pairs of fresh processes, base and head in turns, until every metric is decided.

Or until the samples or the time run out. Who leads a pair alternates, so that the order of the
timed slices is A B A B …, then B A B A …: what the first of two has or lacks is on both sides.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.ab.sample import TIMEOUT_S, Sample, Side, take_pair
from bench.report.compare.metrics import SEPARATOR, of_cell, timed
from bench.report.compare.sequential import Sequential

Request = Mapping[str, Any]


@dataclass
class Contest:
    """A cell under comparison: how it is asked of each side, and what went wrong."""

    name: str
    requests: tuple[Request, Request]
    failure: str | None = None


@dataclass(frozen=True)
class Ending:
    """Why the duel ended, and what it took: processes a side, seconds."""

    reason: str
    rounds: int
    seconds: float


@dataclass
class Duel:
    """One process a side and cell each round; `seen` is told of every sample as it comes."""

    sides: tuple[Side, Side]
    cells: Sequence[Contest]
    floor: Callable[[str], float] = lambda _: 0.0  # by metric
    timeout: float = TIMEOUT_S
    budget: float | None = None
    seen: Callable[[int, Contest, Sample], None] = lambda *_: None
    say: Callable[[str], None] = lambda _: None

    def run(self) -> tuple[Sequential, Ending]:
        """The rule with its verdicts, and how the duel ended."""
        self._begin = time.monotonic()
        metrics = self._warm_up()
        rule = Sequential(metrics, {name: self.floor(name) for name in metrics})
        rounds, longest = 0, 0.0
        for look in rule.looks if self._running(rule) else ():
            while rounds < look:
                started = time.monotonic()
                if self.budget is not None and started - self._begin + longest > self.budget:
                    rule.look(rounds)
                    return rule, self._ending(f"the budget of {self.budget:g} s is spent", rounds)
                self._round(rule, swapped=rounds % 2 == 1)
                rounds += 1
                longest = max(longest, time.monotonic() - started)
            rule.look(rounds)
            self.say(f"{rounds} a side: {len(rule.decided)} of {len(rule.metrics)} metrics decided")
            if not self._running(rule):
                break
        return rule, self._ending(self._why(rule), rounds)

    def _why(self, rule: Sequential) -> str:
        """Why nothing more is measured."""
        failed = [f"{cell.name}: {cell.failure}" for cell in self.cells if cell.failure]
        if failed:
            return f"a process failed ({'; '.join(failed)})"
        if not rule.metrics:
            return "nothing that is timed"
        return "every metric is decided" if not rule.open else "all samples are taken"

    def _ending(self, reason: str, rounds: int) -> Ending:
        return Ending(reason, rounds, time.monotonic() - self._begin)

    def _warm_up(self) -> list[str]:
        """An uncounted process a side: it compiles, fills caches, and tells the metrics."""
        metrics: list[str] = []
        for cell in self.cells:
            pair = self._pair(cell, swapped=False)
            metrics += [name for name in pair[0] if name in pair[1]] if pair else []
        return metrics

    def _running(self, rule: Sequential) -> list[Contest]:
        """Cells with a metric that needs more samples."""
        waiting = {metric.rpartition(SEPARATOR)[0] for metric in rule.open}
        return [cell for cell in self.cells if cell.failure is None and cell.name in waiting]

    def _round(self, rule: Sequential, *, swapped: bool) -> None:
        for cell in self._running(rule):
            pair = self._pair(cell, swapped=swapped)
            if pair is None:
                continue
            for metric in rule.metrics:
                if metric in pair[0] and metric in pair[1]:
                    rule.add(metric, pair[0][metric], pair[1][metric])

    def _pair(
        self, cell: Contest, *, swapped: bool
    ) -> tuple[dict[str, list[float]], dict[str, list[float]]] | None:
        """What a process of each side timed; None, and why in the cell, where one failed."""
        samples = take_pair(self.sides, cell.requests, self.timeout, second_leads=swapped)
        for place, sample in enumerate(samples):
            self.seen(place, cell, sample)
            if not sample.ok and cell.failure is None:
                reason = sample.payload.get("reason")
                cell.failure = f"{self.sides[place].name} {sample.payload['status']}: {reason}"
        if cell.failure is not None:
            return None
        base, head = (timed_in(cell.name, sample.payload) for sample in samples)
        return base, head


def timed_in(cell: str, payload: Mapping[str, Any]) -> dict[str, list[float]]:
    """Raw samples in seconds of what is timed in a result, by cell and metric."""
    return {of_cell(cell, name): samples for name, samples in timed(payload).items()}
