"""Compression: a task of MAD (Poli et al. 2024, arXiv:2403.17844, appendix B).

Random symbols and a mark at the end; all of them are to be told from what a model keeps at the
mark. It is no language model's task: the YAML names the objective, an autoencoder around the
model's backbone, and its logits at a position are of the symbol that stands there.

Deviation from mad-lab's `generate_compression_instance`: the mark itself, which is always the same,
is not asked.

Vocabulary: symbols, then the mark. Shapes: N sequences, L length, the mark included.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.tasks.probe import IGNORED, Guesser, Probe, Samples


class Compression(Probe):
    """`length` symbols, of which the last is the mark."""

    def __init__(
        self,
        *,
        vocab_size: int,
        length: int,
        longer: Sequence[int],
        sequences: Mapping[str, int | None],
    ) -> None:
        if vocab_size < 3:
            raise ValueError(
                f"task.vocab_size={vocab_size} is too small; allowed are 3 and more: the mark and "
                "two symbols"
            )
        super().__init__(
            vocab_size=vocab_size, length=length, longer=longer, settings={}, sequences=sequences
        )

    def check(self, length: int) -> None:
        if length < 2:
            raise ValueError(f"task.length={length} is too short; allowed are 2 and more")

    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        mark = self.vocab_size - 1
        tokens = rng.integers(mark, size=(count, length))
        tokens[:, -1] = mark
        return Samples(tokens, np.where(tokens == mark, IGNORED, tokens))

    def guessers(self, samples: Samples) -> list[Guesser]:
        hits = np.full(len(samples.tokens), 1 / (self.vocab_size - 1))
        return [Guesser("symbols", "any symbol but the mark", hits)]
