"""Comparisons drawn from a pool, each through the whole sequential rule."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.report.compare.sequential import Sequential
from bench.selftest.pool import Pool, Process

BLOCK = 5  # rounds that stay together, so that what drifts on this machine stays in a comparison
Pair = tuple[Sequence[float], Sequence[float]]


@dataclass
class Outcome:
    """Verdicts of many comparisons of one kind."""

    slowdown: float
    comparisons: int = 0
    any_called: int = 0  # comparisons in which at least one metric was called slower or faster
    verdicts: dict[str, Counter[str]] = field(default_factory=dict)  # by metric
    processes: list[int] = field(default_factory=list)  # a side, when the comparison ended
    smallest: dict[str, list[float]] = field(default_factory=dict)

    def share(self, metric: str, verdict: str) -> float:
        return self.verdicts[metric][verdict] / self.comparisons


def rehearse(
    pool: Pool, slowdown: float, comparisons: int, seed: int, *, alone: str | None = None
) -> Outcome:
    """Run `comparisons` of plain against slowed-down processes; slowdown 0 is A/A.

    All metrics of the pool form one comparison, or the metric `alone` does.
    """
    draw = np.random.default_rng(seed)
    metrics = [alone] if alone else list(pool.processes)
    outcome = Outcome(slowdown)
    for _ in range(comparisons):
        rule = Sequential(metrics)
        streams = {name: pairs(pool, name, slowdown, draw, rule.looks[-1]) for name in metrics}
        count = 0
        for look in rule.looks:
            for _ in range(look - count):
                for name, stream in streams.items():
                    rule.add(name, *next(stream))
            count = look
            rule.look(look)
            if not rule.open:
                break
        judged = rule.verdicts()
        outcome.comparisons += 1
        outcome.processes.append(count)
        outcome.any_called += any(j.verdict in ("slower", "faster") for j in judged.values())
        for name, judgement in judged.items():
            outcome.verdicts.setdefault(name, Counter())[judgement.verdict] += 1
            outcome.smallest.setdefault(name, []).append(judgement.smallest)
    return outcome


def pairs(
    pool: Pool, metric: str, slowdown: float, draw: np.random.Generator, count: int
) -> Iterator[Pair]:
    """`count` pairs (base, head) from contiguous blocks of rounds, in an order A B B A.

    A round holds two plain processes. In A/A they face each other; otherwise a slowed-down one
    faces one of them, so that both kinds use the pool alike.
    """
    plain, slowed = pool.of(metric, 0.0), pool.of(metric, slowdown)
    start = Start(draw, len(plain), count)
    flip = bool(draw.integers(2))
    for place, number in enumerate(start.rounds()):
        first, second = _ordered(plain[number], swapped=bool(place % 2) != flip)
        head = second if slowdown == 0.0 else slowed[number][0]
        yield first.samples, head.samples


def _ordered(processes: Sequence[Process], *, swapped: bool) -> tuple[Process, Process]:
    first, second = processes
    return (second, first) if swapped else (first, second)


@dataclass(frozen=True)
class Start:
    """Where the blocks of one comparison begin."""

    draw: np.random.Generator
    available: int
    wanted: int

    def rounds(self) -> Iterator[int]:
        """Numbers of rounds, `BLOCK` contiguous ones at a time."""
        given = 0
        while given < self.wanted:
            begin = int(self.draw.integers(max(self.available - BLOCK + 1, 1)))
            for number in range(begin, min(begin + BLOCK, self.available)):
                if given < self.wanted:
                    yield number
                    given += 1
