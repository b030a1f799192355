"""Selective copying (Mamba, arXiv:2312.00752, section 3.1 and 4.1.1), and MAD's form of it.

`copied` symbols stand in random places among noise; after them come as many marks, and after each
mark the next of the symbols is asked, in their order. A model that treats all positions alike
cannot skip the noise. The definition is that of S4's `torch_copying_data(variable=True)`.

Mechanistic Architecture Design (Poli et al. 2024, arXiv:2403.17844; reference:
github.com/athms/mad-lab) has one mark and noise behind it, and no noise between the last symbol and
the mark: see `MadCopying`.

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


class MadCopying(SelectiveCopying):
    """As `generate_copying_instance` of mad-lab draws it; symbols are numbered otherwise.

    Noise falls before each of the symbols as likely as before another, so that the last one stands
    before the mark. The answers are asked from the first noise behind the mark on.
    """

    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        M, mark = self.copied, self.vocab_size - 1
        data = rng.integers(1, mark, size=(count, M))
        noise = rng.multinomial(length - M, np.full(M, 1 / M), size=count)  # before each, (N, M)
        tokens = np.zeros((count, length + M + 2), np.int64)
        np.put_along_axis(tokens, noise.cumsum(1) + np.arange(M), data, 1)
        tokens[:, length] = mark
        labels = np.full(tokens.shape, IGNORED)
        labels[:, length + 2 :] = data
        return Samples(tokens, labels)
