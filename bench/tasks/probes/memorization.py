"""Memorisation of facts: a task of MAD (Poli et al. 2024, arXiv:2403.17844, appendix B).

Keys have the same values in every sequence, and no value is ever shown: after each key its value is
asked, and an empty symbol stands in its place.

Vocabulary: keys, values, the empty symbol. Shapes: N sequences, L length.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.tasks.probe import IGNORED, Guesser, Probe, Samples

FACTS = 12345  # the seed of the mapping


class Memorization(Probe):
    """Half of the vocabulary less one are keys."""

    def __init__(
        self,
        *,
        vocab_size: int,
        length: int,
        longer: Sequence[int],
        sequences: Mapping[str, int | None],
    ) -> None:
        self.keys = (vocab_size - 1) // 2
        if self.keys < 1:
            raise ValueError(f"task.vocab_size={vocab_size} is too small; allowed are 3 and more")
        values = np.random.default_rng(FACTS).permutation(vocab_size - 1 - self.keys)
        self.facts = self.keys + values[: self.keys]
        super().__init__(
            vocab_size=vocab_size, length=length, longer=longer, settings={}, sequences=sequences
        )

    def check(self, length: int) -> None:
        if length % 2:
            raise ValueError(f"task.length={length} is odd; allowed are even ones")

    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        keys = rng.integers(self.keys, size=(count, length // 2))
        tokens = np.full((count, length), self.vocab_size - 1)
        tokens[:, ::2] = keys
        labels = np.full((count, length), IGNORED)
        labels[:, 1::2] = self.facts[keys]
        return Samples(tokens, labels)

    def guessers(self, samples: Samples) -> list[Guesser]:
        hits = np.full(len(samples.tokens), 1 / self.keys)
        return [Guesser("values", "the value of any key", hits)]
