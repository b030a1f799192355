"""Comparisons drawn from a pool, each through the whole sequential rule."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.report.compare.sequential import Sequential
from bench.selftest.pool import Pool

BLOCK = 5  # pairs that stay together, so that what drifts on this machine stays in a comparison
Drawn = tuple[Sequence[float], Sequence[float]]


@dataclass
class Rehearsal:
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
    pool: Pool,
    slowdown: float,
    comparisons: int,
    seed: int,
    floors: Mapping[str, float] | None = None,
) -> Rehearsal:
    """Run `comparisons` of plain against slowed-down processes; slowdown 0 is A/A.

    All metrics of the pool form one comparison. `floors` are those of `bench.ab`, none for the
    least there is.
    """
    draw = np.random.default_rng(seed)
    metrics = list(pool.pairs)
    outcome = Rehearsal(slowdown)
    for _ in range(comparisons):
        rule = Sequential(metrics, floors or {})
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
) -> Iterator[Drawn]:
    """`count` pairs (base, head) from contiguous blocks of the pool.

    In A/A either process may play the head.
    """
    found = pool.of(metric, slowdown)
    flip = slowdown == 0.0 and bool(draw.integers(2))
    for number in blocks(draw, len(found), count):
        pair = found[number]
        yield (pair.other, pair.plain) if flip else (pair.plain, pair.other)


def blocks(draw: np.random.Generator, available: int, wanted: int) -> Iterator[int]:
    """`wanted` numbers below `available`, `BLOCK` contiguous ones at a time."""
    given = 0
    while given < wanted:
        begin = int(draw.integers(max(available - BLOCK + 1, 1)))
        for number in range(begin, min(begin + BLOCK, available, begin + wanted - given)):
            yield number
            given += 1
