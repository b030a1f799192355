"""A comparison that is judged while it grows, and stops as soon as its verdict is safe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.report.compare.statistics import LOOKS, Judgement, judge, least_p, spent


@dataclass
class Sequential:
    """Samples of each metric by process, in the order in which base and head took turns.

    At each look every metric is judged with all of its samples; the correction counts all of them,
    those that were decided earlier too. A metric is decided once its verdict is not "ambiguous".
    """

    metrics: Sequence[str]
    floors: Mapping[str, float] = field(default_factory=dict)
    looks: Sequence[int] = LOOKS
    decided: dict[str, Judgement] = field(default_factory=dict)
    last: dict[str, Judgement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.base: dict[str, list[Sequence[float]]] = {name: [] for name in self.metrics}
        self.head: dict[str, list[Sequence[float]]] = {name: [] for name in self.metrics}
        self._looked = 0

    def add(self, metric: str, base: Sequence[float], head: Sequence[float]) -> None:
        """One process of each side."""
        self.base[metric].append(base)
        self.head[metric].append(head)

    @property
    def open(self) -> list[str]:
        """Metrics that need more samples."""
        return [name for name in self.metrics if name not in self.decided]

    def look(self, count: int) -> None:
        """Judge at `count` processes a side, spending what the error allows up to there.

        Where so few samples can show nothing at what may be spent, this is no look: the error that
        it would have cost is left to the next one.
        """
        pairs = {name: (self.base[name], self.head[name]) for name in self.metrics}
        alpha = spent(count, self._looked, most=self.looks[-1])
        if len(self.metrics) * least_p(count, count, paired=True) <= alpha:
            self._looked = count
        elif self.last:
            return
        self.last = judge(pairs, floors=self.floors, alpha=alpha, paired=True)
        for name in self.open:
            if self.last[name].verdict != "ambiguous":
                self.decided[name] = self.last[name]

    def verdicts(self) -> dict[str, Judgement]:
        """What was decided, and the last look at the rest."""
        return {**self.last, **self.decided}
