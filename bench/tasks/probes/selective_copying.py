"""Selective copying (Mamba, arXiv:2312.00752, section 3.1 and 4.1.1).

`copied` symbols stand in random places among noise; after them come as many marks, and after each
mark the next of the symbols is asked, in their order. A model that treats all positions alike
cannot skip the noise.

Vocabulary: 0 noise, V - 1 the mark, symbols between. Shapes: N sequences, L length before the
marks, M copied symbols.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.tasks.probe import IGNORED, Guesser, Probe, Samples
from bench.tasks.probes.drawing import places


class SelectiveCopying(Probe):
    """`copied` symbols among `length`."""

    def __init__(
        self,
        *,
        vocab_size: int,
        length: int,
        copied: int,
        longer: Sequence[int],
        sequences: Mapping[str, int | None],
    ) -> None:
        self.copied = copied
        if vocab_size < 4:
            raise ValueError(
                f"task.vocab_size={vocab_size} is too small; allowed are 4 and more: the noise, "
                "the mark and two symbols"
            )
        super().__init__(
            vocab_size=vocab_size, length=length, longer=longer, settings={"copied": copied},
            sequences=sequences,
        )  # fmt: skip

    def check(self, length: int) -> None:
        if not 1 <= self.copied <= length:
            raise ValueError(
                f"task.copied={self.copied} does not fit into {length} symbols; allowed: 1 to that"
            )

    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        M, mark = self.copied, self.vocab_size - 1
        data = rng.integers(1, mark, size=(count, M))
        tokens = np.zeros((count, length + M + 1), np.int64)
        np.put_along_axis(tokens, places(rng, count, M, length), data, 1)
        tokens[:, length:-1] = mark
        labels = np.full(tokens.shape, IGNORED)
        labels[:, length + 1 :] = data
        return Samples(tokens, labels)

    def guessers(self, samples: Samples) -> list[Guesser]:
        asked = samples.labels != IGNORED
        hits = np.array(
            [
                np.unique(row[there], return_counts=True)[1].max() / there.sum()
                for row, there in zip(samples.labels, asked, strict=True)
            ]
        )
        return [Guesser("most frequent", "the most frequent symbol of those copied", hits)]
