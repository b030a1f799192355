"""Passkeys in filler (Mohtashami and Jaggi 2023, arXiv:2305.16300; RULER, arXiv:2404.06654).

Between random filler stand `needles`, each a name and `digits` digits after it; at the end one of
the names comes again, and its digits are asked. A sequence counts where all of them are right.
Trained at one length and tested at longer ones, with as many needles.

Vocabulary: digits 0 .. 9, then `filler` symbols, then the names. Shapes: N sequences, L length
before the answer, the last name included; K needles.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from bench.tasks.probe import IGNORED, Guesser, Probe, Samples
from bench.tasks.probes.drawing import places

DIGITS = 10


class Passkey(Probe):
    """One of `needles` keys of `digits` digits."""

    metric: ClassVar[str] = "exact_match"

    def __init__(
        self, *, filler: int, needles: int, digits: int, length: int, longer: Sequence[int],
        sequences: Mapping[str, int | None],
    ) -> None:  # fmt: skip
        for name, value in {"filler": filler, "needles": needles, "digits": digits}.items():
            if value < 1:
                raise ValueError(f"task.{name}={value} is too few; allowed are 1 and more")
        self.filler, self.needles, self.digits = filler, needles, digits
        super().__init__(
            vocab_size=DIGITS + filler + needles, length=length, longer=longer,
            settings={"needles": needles, "digits": digits}, sequences=sequences,
        )  # fmt: skip

    def check(self, length: int) -> None:
        needed = self.needles * (self.digits + 1) + 1
        if length < needed:
            raise ValueError(
                f"task.length={length} does not hold task.needles={self.needles} of "
                f"task.digits={self.digits}; allowed are lengths from {needed} on"
            )

    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        K, size = self.needles, self.digits + 1
        tokens = DIGITS + rng.integers(self.filler, size=(count, length + self.digits))
        # Places as if every needle were one symbol; then those before it make room.
        begin = places(rng, count, K, length - 1 - K * (size - 1)) + np.arange(K) * (size - 1)
        names = DIGITS + self.filler + rng.permuted(np.tile(np.arange(K), (count, 1)), axis=1)
        keys = rng.integers(DIGITS, size=(count, K, self.digits))
        needles = np.concatenate([names[:, :, None], keys], 2)  # (N, K, 1 + digits)
        at = (begin[:, :, None] + np.arange(size)).reshape(count, -1)
        np.put_along_axis(tokens, at, needles.reshape(count, -1), 1)
        chosen = rng.integers(K, size=count)
        tokens[:, length - 1] = names[np.arange(count), chosen]
        tokens[:, length:] = keys[np.arange(count), chosen]
        labels = np.full(tokens.shape, IGNORED)
        labels[:, length:] = tokens[:, length:]
        return Samples(tokens, labels)

    def guessers(self, samples: Samples) -> list[Guesser]:
        hits = np.full(len(samples.tokens), 1 / DIGITS)
        any_digits = Guesser("digits", "any digits", hits)
        if self.needles == 1:
            return [any_digits]
        # One of the keys: all of it or, but for chance, nothing.
        whole = (1 / self.needles) ** (1 / self.digits)
        return [any_digits, Guesser("a needle", "any of the keys", np.full(len(hits), whole))]

    def score(self, hits: np.ndarray, asked: np.ndarray) -> np.ndarray:
        return (hits | ~asked).all(1).astype(np.float64)

    def expected(self, hits: np.ndarray, asked: np.ndarray) -> np.ndarray:
        found: np.ndarray = hits ** asked.sum(1)
        return found
