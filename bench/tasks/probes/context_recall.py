"""Recall in context, plain and noisy: tasks of MAD.

Mechanistic Architecture Design (Poli et al. 2024, arXiv:2403.17844, appendix B; reference:
github.com/athms/mad-lab). Keys and values alternate, and a key has the same value throughout a
sequence. The values of keys that were seen before are asked, and the last key is one of them. With
`noise` that share of the pairs is two symbols of a vocabulary of noise instead. In training too
only what the paper scores is asked; its code trains on every symbol.

Shapes: N sequences, L length, P pairs.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.tasks.probe import IGNORED, Guesser, Probe, Samples


class ContextRecall(Probe):
    """Half of the vocabulary but for `noise_symbols` are keys, half values."""

    def __init__(
        self, *, vocab_size: int, noise_symbols: int, noise: float, length: int,
        longer: Sequence[int],
        sequences: Mapping[str, int | None],
    ) -> None:  # fmt: skip
        self.keys = (vocab_size - noise_symbols) // 2
        self.values = vocab_size - noise_symbols - self.keys
        self.noise = noise
        if self.keys < 1:
            raise ValueError(
                f"task.vocab_size={vocab_size} leaves no keys beside task.noise_symbols="
                f"{noise_symbols}; allowed is one that is larger by 2 and more"
            )
        if not 0 <= noise < 1 or (noise > 0 and noise_symbols < 1):
            raise ValueError(
                f"task.noise={noise} cannot be with task.noise_symbols={noise_symbols}; allowed: "
                "0, or with symbols for it a share below 1"
            )
        super().__init__(
            vocab_size=vocab_size,
            length=length,
            longer=longer,
            settings={"noise": noise},
            sequences=sequences,
        )

    def check(self, length: int) -> None:
        if length % 2 or length < 4:
            raise ValueError(f"task.length={length} is not two pairs; allowed: even, from 4 on")

    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        P = length // 2
        values = self.keys + rng.integers(self.values, size=(count, self.keys))
        keys = rng.integers(self.keys, size=(count, P))
        noisy = rng.random((count, P)) < self.noise
        # One pair is none of the noise, and the last asks for a key that was there.
        rows, sure = np.arange(count), rng.integers(P - 1, size=count)
        noisy[rows, sure] = noisy[:, -1] = False
        pick = np.where(noisy[:, :-1], 2.0, rng.random((count, P - 1))).argmin(1)
        keys[:, -1] = keys[rows, pick]
        seen = _seen(keys, noisy, self.keys)
        tokens = np.empty((count, P, 2), np.int64)
        tokens[:, :, 0], tokens[:, :, 1] = keys, np.take_along_axis(values, keys, 1)
        if self.noise:
            other = self.keys + self.values
            drawn = rng.integers(other, self.vocab_size, size=tokens.shape)
            tokens = np.where(noisy[:, :, None], drawn, tokens)
        labels = np.full(tokens.shape, IGNORED)
        labels[:, :, 1] = np.where(seen, tokens[:, :, 1], IGNORED)
        return Samples(tokens.reshape(count, length), labels.reshape(count, length))

    def guessers(self, samples: Samples) -> list[Guesser]:
        hits = np.full(len(samples.tokens), 1 / self.values)
        return [Guesser("values", "any value", hits)]


def _seen(keys: np.ndarray, noisy: np.ndarray, count: int) -> np.ndarray:
    """Where a pair has a key that an earlier one of its sequence has, (N, P)."""
    seen = np.zeros((len(keys), count + 1), bool)
    found = np.empty(keys.shape, bool)
    rows = np.arange(len(keys))
    for p in range(keys.shape[1]):
        key = np.where(noisy[:, p], count, keys[:, p])
        found[:, p] = seen[rows, key] & ~noisy[:, p]
        seen[rows, key] = True
    return found
