"""Fuzzy recall in context: a task of MAD (Poli et al. 2024, arXiv:2403.17844, appendix B).

As `context_recall`, but keys and values are 1 to `motif` symbols, all different within one; in a
test keys are as long as can be. Sequences begin with padding.

Vocabulary: symbols of keys, symbols of values, padding. Shapes: N sequences, L length, P pairs,
m motif.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.tasks.probe import IGNORED, Guesser, Probe, Samples
from bench.tasks.probes.drawing import distinct


class FuzzyRecall(Probe):
    """Half of the vocabulary less one are symbols of keys."""

    def __init__(
        self,
        *,
        vocab_size: int,
        motif: int,
        length: int,
        longer: Sequence[int],
        sequences: Mapping[str, int | None],
    ) -> None:
        self.keys = (vocab_size - 1) // 2
        self.values = vocab_size - 1 - self.keys
        self.motif = motif
        if not 1 <= motif <= self.keys:
            raise ValueError(
                f"task.motif={motif} cannot be with task.vocab_size={vocab_size}, which has "
                f"{self.keys} symbols for keys; allowed: 1 to that"
            )
        super().__init__(
            vocab_size=vocab_size,
            length=length,
            longer=longer,
            settings={"motif": motif},
            sequences=sequences,
        )

    def check(self, length: int) -> None:
        if length < 4 * self.motif:
            raise ValueError(
                f"task.length={length} does not hold a pair of task.motif={self.motif} twice; "
                f"allowed are lengths from {4 * self.motif} on"
            )

    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        m, P = self.motif, length // 2  # no sequence holds more pairs, of two symbols at least
        shape, rows = (count, P), np.arange(count)
        key_size = rng.integers(1 if training else m, m + 1, size=shape)
        value_size = rng.integers(1, m + 1, size=shape)
        key, value = (
            distinct(rng, count * P, m, pool).reshape(*shape, m)
            for pool in (self.keys, self.values)
        )
        # A key's value is that of the first pair that has it, (N, P).
        first = _first(_named(key, key_size, self.keys))
        value_size = np.take_along_axis(value_size, first, 1)
        value = self.keys + np.take_along_axis(value, first[:, :, None], 1)
        size = key_size + value_size
        # As many pairs as leave room for one more, which is one of them again.
        pairs = (size.cumsum(1) <= length - 2 * m).sum(1)
        again = rng.integers(pairs)
        for part in (key, value, key_size, value_size, size):
            part[rows, pairs] = part[rows, again]
        seen = first < np.arange(P)
        seen[rows, pairs] = True
        written = np.arange(P) <= pairs[:, None]
        end = np.where(written, size, 0).cumsum(1)
        begin = end - size + length - end[:, -1:]  # behind the padding
        tokens = np.full((count, length), self.vocab_size - 1)
        labels = np.full((count, length), IGNORED)
        place = np.arange(m)
        for motif, motif_size, start, asked in (
            (key, key_size, begin, np.zeros(shape, bool)),
            (value, value_size, begin + key_size, seen),
        ):
            there = written[:, :, None] & (place < motif_size[:, :, None])
            row = np.broadcast_to(rows[:, None, None], there.shape)
            at = start[:, :, None] + place
            tokens[row[there], at[there]] = motif[there]
            there &= asked[:, :, None]
            labels[row[there], at[there]] = motif[there]
        return Samples(tokens, labels)

    def guessers(self, samples: Samples) -> list[Guesser]:
        hits = np.full(len(samples.tokens), 1 / self.values)
        return [Guesser("values", "any symbol of values", hits)]


def _named(motif: np.ndarray, size: np.ndarray, pool: int) -> np.ndarray:
    """One number for each motif (..., m) of a size, of symbols below `pool`."""
    place = np.arange(motif.shape[-1])
    digits = np.where(place < size[..., None], motif + 1, 0)
    found: np.ndarray = digits @ (pool + 1) ** place
    return found


def _first(names: np.ndarray) -> np.ndarray:
    """Where the first one is that is called the same, (N, P)."""
    found: np.ndarray = (names[:, :, None] == names[:, None, :]).argmax(2)
    return found
