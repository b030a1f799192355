"""State tracking: running products, asked after every symbol in training and at the end in a test.

- `Parity`: of ones so far (as in Grazzi et al. 2025, arXiv:2411.12537).
- `ModularArithmetic`: the value modulo m of a sum of products without brackets, asked after each
  number (Delétang et al. 2023, arXiv:2207.02098).
- `Words`: the product of the elements of a group so far (Merrill et al. 2024, arXiv:2404.08819);
  Z60 commutes, A5 is the smallest group that is not solvable, S5 holds it.

The score is scaled so that a guess among all answers is 0: (accuracy - 1/C) / (1 - 1/C) for C of
them.

Shapes: N sequences, L symbols.
"""

import abc
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from bench.tasks.probe import IGNORED, Guesser, Probe, Samples

GROUPS = ("Z60", "A5", "S5")


class Tracking(Probe):
    """A probe whose answers are `answers` many, as likely as one another in the long run."""

    metric: ClassVar[str] = "scaled_accuracy"
    answers: int

    @abc.abstractmethod
    def states(self, symbols: np.ndarray) -> np.ndarray:
        """The answer after each of the symbols, (N, L); IGNORED where there is none."""

    @abc.abstractmethod
    def symbols(self, rng: np.random.Generator, count: int, length: int) -> np.ndarray:
        """Random symbols, (N, L)."""

    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        symbols = self.symbols(rng, count, length)
        tokens = np.zeros((count, length + 1), np.int64)
        tokens[:, :length] = symbols
        labels = np.full(tokens.shape, IGNORED)
        labels[:, 1:] = self.states(symbols)
        if not training:
            labels[:, :length] = IGNORED
        return Samples(tokens, labels)

    def score(self, hits: np.ndarray, asked: np.ndarray) -> np.ndarray:
        chance = 1 / self.answers
        scaled: np.ndarray = (super().score(hits, asked) - chance) / (1 - chance)
        return scaled

    def expected(self, hits: np.ndarray, asked: np.ndarray) -> np.ndarray:
        chance = 1 / self.answers
        scaled: np.ndarray = (hits - chance) / (1 - chance)
        return scaled

    def guessers(self, samples: Samples) -> list[Guesser]:
        hits = np.full(len(samples.tokens), 1 / self.answers)
        return [Guesser("answer set", "any of the possible answers", hits)]


class Parity(Tracking):
    """Whether there were an odd number of ones."""

    answers = 2

    def __init__(
        self, *, length: int, longer: Sequence[int], sequences: Mapping[str, int | None]
    ) -> None:
        super().__init__(
            vocab_size=2, length=length, longer=longer, settings={}, sequences=sequences
        )

    def symbols(self, rng: np.random.Generator, count: int, length: int) -> np.ndarray:
        return rng.integers(2, size=(count, length))

    def states(self, symbols: np.ndarray) -> np.ndarray:
        found: np.ndarray = symbols.cumsum(1) % 2
        return found


class ModularArithmetic(Tracking):
    """Numbers below `modulus` with +, - and × between them, which are the symbols after these."""

    def __init__(
        self,
        *,
        modulus: int,
        length: int,
        longer: Sequence[int],
        sequences: Mapping[str, int | None],
    ) -> None:
        if modulus < 2:
            raise ValueError(f"task.modulus={modulus} is too small; allowed are 2 and more")
        self.modulus = self.answers = modulus
        super().__init__(
            vocab_size=modulus + 3, length=length, longer=longer, settings={"modulus": modulus},
            sequences=sequences,
        )  # fmt: skip

    def check(self, length: int) -> None:
        if length % 2 == 0:
            raise ValueError(
                f"task.length={length} is even, and numbers stand at both ends; allowed: odd ones"
            )

    def symbols(self, rng: np.random.Generator, count: int, length: int) -> np.ndarray:
        found = rng.integers(self.modulus, size=(count, length))
        found[:, 1::2] = self.modulus + rng.integers(3, size=(count, length // 2))
        return found

    def states(self, symbols: np.ndarray) -> np.ndarray:
        m = self.modulus
        found = np.full(symbols.shape, IGNORED)
        total, term = np.zeros(len(symbols), np.int64), symbols[:, 0]
        found[:, 0] = term
        for t in range(2, symbols.shape[1], 2):
            operator, number = symbols[:, t - 1] - m, symbols[:, t]
            times = operator == 2
            total = np.where(times, total, (total + term) % m)
            term = np.where(times, term * number, np.where(operator == 1, -number, number)) % m
            found[:, t] = (total + term) % m
        return found


class Words(Tracking):
    """Words over all elements of a `group`, read from the left."""

    def __init__(
        self, *, group: str, length: int, longer: Sequence[int], sequences: Mapping[str, int | None]
    ) -> None:
        if group not in GROUPS:
            raise ValueError(f"task.group={group!r} is unknown; allowed are {', '.join(GROUPS)}")
        self.table = products(group)
        self.answers = len(self.table)
        super().__init__(
            vocab_size=self.answers, length=length, longer=longer, settings={"group": group},
            sequences=sequences,
        )  # fmt: skip

    def symbols(self, rng: np.random.Generator, count: int, length: int) -> np.ndarray:
        return rng.integers(self.answers, size=(count, length))

    def states(self, symbols: np.ndarray) -> np.ndarray:
        found = np.empty_like(symbols)
        found[:, 0] = symbols[:, 0]
        for t in range(1, symbols.shape[1]):
            found[:, t] = self.table[found[:, t - 1], symbols[:, t]]
        return found


@functools.cache
def products(group: str) -> np.ndarray:
    """products[i, j] is the element i j, i first; the elements of Z60 are 0 .. 59.

    Those of S5 are the permutations of five things in lexical order, and of A5 the even ones.
    """
    if group == "Z60":
        element = np.arange(60)
        return (element[:, None] + element) % 60
    elements = list(itertools.permutations(range(5)))
    if group == "A5":
        elements = [p for p in elements if not _odd(p)]
    index = {p: i for i, p in enumerate(elements)}
    return np.array([[index[tuple(q[x] for x in p)] for q in elements] for p in elements])


def _odd(permutation: Sequence[int]) -> bool:
    """Whether it has an odd number of inversions."""
    pairs = itertools.combinations(permutation, 2)
    return sum(x > y for x, y in pairs) % 2 == 1
