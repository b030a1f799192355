"""Copying of strings (Jelassi et al. 2024, arXiv:2402.01032).

`$ s | s .`: a random string of letters, a bar and the same string again, then a full stop. All of
the copy is asked, and a sequence counts where all of it is right. Strings have 1 to `length`
letters in training and exactly as many in a test.

Vocabulary: 0 padding, 1 `$`, 2 `|`, 3 `.`, letters from 4 on. Shapes: N sequences, L letters.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from bench.tasks.probe import IGNORED, Probe, Samples

PADDING, FIRST, BAR, STOP, LETTER = range(5)


class Copying(Probe):
    """Strings over `letters` letters."""

    metric: ClassVar[str] = "exact_match"

    def __init__(
        self,
        *,
        letters: int,
        length: int,
        longer: Sequence[int],
        sequences: Mapping[str, int | None],
    ) -> None:
        if letters < 2:
            raise ValueError(f"task.letters={letters} is too few; allowed are 2 and more")
        self.letters = letters
        super().__init__(
            vocab_size=LETTER + letters, length=length, longer=longer,
            settings={"letters": letters}, sequences=sequences,
        )  # fmt: skip

    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        lengths = rng.integers(1, length + 1, size=count) if training else np.full(count, length)
        lengths = lengths[:, None]
        string = rng.integers(LETTER, LETTER + self.letters, size=(count, length))
        at = np.arange(2 * length + 3)  # of every symbol
        tokens = np.zeros((count, len(at)), np.int64)
        tokens[:, 0] = FIRST
        # The letter of the string at each position of both copies; elsewhere it is not read.
        letter = np.where(at <= lengths, at - 1, at - lengths - 2).clip(0, length - 1)
        copy = (at > lengths + 1) & (at <= 2 * lengths + 1)
        tokens = np.where(
            ((at >= 1) & (at <= lengths)) | copy, np.take_along_axis(string, letter, 1), tokens
        )
        np.put_along_axis(tokens, lengths + 1, BAR, 1)
        np.put_along_axis(tokens, 2 * lengths + 2, STOP, 1)
        labels = np.where(copy | (at == 2 * lengths + 2), tokens, IGNORED)
        return Samples(tokens, labels)

    def score(self, hits: np.ndarray, asked: np.ndarray) -> np.ndarray:
        return (hits | ~asked).all(1).astype(np.float64)

    def expected(self, hits: np.ndarray, asked: np.ndarray) -> np.ndarray:
        found: np.ndarray = hits ** asked.sum(1)
        return found
