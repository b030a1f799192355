"""Induction heads (Olsson et al. 2022, arXiv:2209.11895, as in Mamba, arXiv:2312.00752, 4.1.2).

A mark stands somewhere in random symbols and once more at the end: what followed it the first time
is asked. Trained at one length and tested at others.

Vocabulary: V - 1 the mark, symbols below. Shapes: N sequences, L length, the last mark included.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.tasks.probe import IGNORED, Probe, Samples


class Induction(Probe):
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
            raise ValueError(f"task.vocab_size={vocab_size} is too small; allowed are 3 and more")
        super().__init__(
            vocab_size=vocab_size, length=length, longer=longer, settings={}, sequences=sequences
        )

    def check(self, length: int) -> None:
        if length < 3:
            raise ValueError(f"task.length={length} is too short; allowed are 3 and more")

    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        mark = self.vocab_size - 1
        tokens = rng.integers(mark, size=(count, length + 1))
        place = rng.integers(length - 2, size=(count, 1))
        np.put_along_axis(tokens, place, mark, 1)
        tokens[:, length - 1] = mark
        labels = np.full(tokens.shape, IGNORED)
        labels[:, length] = np.take_along_axis(tokens, place + 1, 1)[:, 0]
        return Samples(tokens, labels)
