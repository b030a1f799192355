"""Multi-query associative recall (MQAR; Arora et al. 2023, arXiv:2312.04927).

K pairs of a key and a value open the sequence, all keys different and all values too. Each key
comes once more after a gap that follows a power law, and its value is asked; between them are
zeros, or with `random_non_queries` any symbols. Keys are 1 .. V/2 - 1, values V/2 .. V - 1. The
definition is that of zoology's `multiquery_ar`.

Shapes: N sequences, L length, K pairs, V vocabulary.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.tasks.probe import IGNORED, Guesser, Probe, Samples
from bench.tasks.probes.drawing import distinct, weighted


class Recall(Probe):
    """`pairs` at training's length; of a longer sequence there are as many."""

    def __init__(
        self,
        *,
        vocab_size: int,
        length: int,
        pairs: int,
        power: float,
        random_non_queries: bool,
        longer: Sequence[int],
        sequences: Mapping[str, int | None],
    ) -> None:
        self.pairs, self.power, self.random = pairs, power, random_non_queries
        if pairs < 1 or vocab_size // 2 - 1 < pairs:
            raise ValueError(
                f"task.vocab_size={vocab_size} has {max(vocab_size // 2 - 1, 0)} keys, and "
                f"task.pairs={pairs} are needed; allowed is 1 to half the vocabulary less one"
            )
        if not power > 0:
            raise ValueError(f"task.power={power} must be above 0")
        super().__init__(
            vocab_size=vocab_size,
            length=length,
            longer=longer,
            settings={"pairs": pairs},
            sequences=sequences,
        )

    def check(self, length: int) -> None:
        if length % 2 or 4 * self.pairs > length:
            raise ValueError(
                f"task.length={length} does not hold task.pairs={self.pairs}: they and their "
                f"queries take {4 * self.pairs} symbols; allowed is an even length from there on"
            )

    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        half, K = self.vocab_size // 2, self.pairs
        keys = 1 + distinct(rng, count, K, half - 1)  # (N, K)
        values = half + distinct(rng, count, K, self.vocab_size - half)
        tokens = np.zeros((count, length), np.int64)
        tokens[:, 0 : 2 * K : 2], tokens[:, 1 : 2 * K : 2] = keys, values
        # The density of a power law at the places for queries, which are two symbols each.
        room = np.arange(1, (length - 2 * K) // 2 + 1)
        gaps = weighted(rng, count, K, self.power * room ** (self.power - 1))
        queries = 2 * K + 2 * gaps  # (N, K)
        np.put_along_axis(tokens, queries, keys, 1)
        labels = np.full((count, length), IGNORED)
        np.put_along_axis(labels, queries + 1, values, 1)
        if self.random:
            # As zoology does: what is drawn may be a key or a value by chance.
            tokens = np.where(tokens == 0, rng.integers(self.vocab_size, size=tokens.shape), tokens)
        return Samples(tokens, labels)

    def guessers(self, samples: Samples) -> list[Guesser]:
        hits = np.full(len(samples.tokens), 1 / self.pairs)
        return [Guesser("value set", "any value of the sequence: what is learned first", hits)]
