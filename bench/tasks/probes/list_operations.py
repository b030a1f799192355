"""List operations: ListOps (Nangia and Bowman 2018, arXiv:1804.06028), as small as LRA's is large.

Nested lists of digits under MAX, MIN, MED (the median, whole numbers of it) and SUM modulo ten; the
value of the outermost is asked. A sequence has more than half of `length` symbols and at most all
of it, with padding in front.

Deviations from LRA (arXiv:2011.04006; reference: google-research/long-range-arena,
`data/listops.py`): lists are shorter, less deep and nested more often, and brackets are symbols of
their own, with no parentheses around pairs.

Vocabulary: digits 0 .. 9, then MAX, MIN, MED, SUM, a closing bracket and padding. Shapes: N
sequences, L length, S nodes of a full tree.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bench.tasks.probe import IGNORED, Guesser, Probe, Samples

MAX, MIN, MED, SUM, CLOSE, PADDING = range(10, 16)
NESTED = 0.4  # of an argument, to be a list


class Level(NamedTuple):
    """The nodes of all trees at one depth, tree by tree from left to right, each (S,).

    `of` is the place of the list at the depth before that a node is an argument of, at the depth of
    the roots the tree's own. A node is a list where `lists`, which has `arity` arguments.
    """

    of: np.ndarray
    lists: np.ndarray
    arity: np.ndarray
    symbol: np.ndarray


class ListOperations(Probe):
    """Lists of 2 to `arguments` arguments, `depth` of them inside one another at most."""

    def __init__(
        self,
        *,
        length: int,
        depth: int,
        arguments: int,
        longer: Sequence[int],
        sequences: Mapping[str, int | None],
    ) -> None:
        self.depth, self.arguments = depth, arguments
        if depth < 1 or arguments < 2:
            raise ValueError(
                f"task.depth={depth} and task.arguments={arguments} make no list; allowed are 1 "
                "and 2, and more"
            )
        super().__init__(
            vocab_size=16, length=length, longer=longer,
            settings={"depth": depth, "arguments": arguments}, sequences=sequences,
        )  # fmt: skip

    def check(self, length: int) -> None:
        most = 1
        for _ in range(self.depth):
            most = 2 + self.arguments * most
        if not 8 <= length <= most:
            raise ValueError(
                f"task.length={length} cannot be with task.depth={self.depth} and "
                f"task.arguments={self.arguments}; allowed: 8 to {most}"
            )

    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        kept: list[Samples] = []
        while (missing := count - sum(len(s.tokens) for s in kept)) > 0:
            kept.append(self._fitting(rng, max(64, 2 * missing), length))
        tokens, labels = (
            np.concatenate([getattr(s, name) for s in kept])[:count]
            for name in ("tokens", "labels")
        )
        return Samples(tokens, labels)

    def _fitting(self, rng: np.random.Generator, count: int, length: int) -> Samples:
        """Of `count` random trees those that are as long as asked."""
        levels = self._grown(rng, count)
        size = _sizes(levels)[0]
        levels = _kept(levels, (size <= length) & (size > length // 2))
        tokens = _written(levels, length)
        labels = np.full(tokens.shape, IGNORED)
        labels[:, length] = _values(levels)
        return Samples(tokens, labels)

    def _grown(self, rng: np.random.Generator, count: int) -> list[Level]:
        """Random trees, from their roots on."""
        levels: list[Level] = []
        of = np.arange(count)
        for depth in range(self.depth + 1):
            nested = (rng.random(len(of), np.float32) < NESTED) | (depth == 0)
            lists = nested & (depth < self.depth)
            arity = np.where(lists, rng.integers(2, self.arguments + 1, size=len(of)), 0)
            function, digit = (rng.integers(*r, size=len(of)) for r in ((MAX, CLOSE), (0, 10)))
            levels.append(Level(of, lists, arity, np.where(lists, function, digit)))
            of = np.repeat(np.arange(len(of)), arity)
        return levels

    def guessers(self, samples: Samples) -> list[Guesser]:
        answers = samples.labels[:, -1]
        most = np.bincount(answers, minlength=10).argmax()
        return [
            Guesser("most frequent", f"always {most}", (answers == most).astype(np.float64)),
            Guesser("digits", "any digit", np.full(len(answers), 0.1)),
        ]


def _sizes(levels: Sequence[Level]) -> list[np.ndarray]:
    """How many symbols each node takes, by depth."""
    sizes = [np.ones(len(level.of), np.int64) for level in levels]
    for n in reversed(range(len(levels) - 1)):
        inner = np.bincount(levels[n + 1].of, sizes[n + 1], minlength=len(sizes[n]))
        sizes[n] += np.where(levels[n].lists, 1 + inner.astype(np.int64), 0)
    return sizes


def _kept(levels: Sequence[Level], chosen: np.ndarray) -> list[Level]:
    """The trees that are chosen (N), numbered anew."""
    found: list[Level] = []
    numbers = np.arange(len(chosen))
    for level in levels:
        there = chosen[level.of]
        found.append(Level(numbers[level.of[there]], *(part[there] for part in level[1:])))
        chosen, numbers = there, np.cumsum(there) - 1
    return found


def _values(levels: Sequence[Level]) -> np.ndarray:
    """What each tree comes to, (N)."""
    value = levels[-1].symbol
    for level, inner in zip(levels[-2::-1], levels[:0:-1], strict=True):
        found = level.symbol.copy()
        found[level.lists] = _applied(level, inner, value)
        value = found
    return value


def _applied(level: Level, inner: Level, value: np.ndarray) -> np.ndarray:
    """What the lists of a depth come to, from the values of their arguments."""
    symbol, count = level.symbol[level.lists], level.arity[level.lists]
    if not len(count):
        return symbol
    first = np.cumsum(count) - count
    ordered = value[np.lexsort((value, inner.of))]
    last = first + count - 1
    # Of an odd number of arguments the two in the middle are one.
    median = (ordered[first + (count - 1) // 2] + ordered[first + count // 2]) // 2
    return np.select(
        [symbol == MAX, symbol == MIN, symbol == MED],
        [ordered[last], ordered[first], median],
        np.add.reduceat(value, first) % 10,
    )


def _written(levels: Sequence[Level], length: int) -> np.ndarray:
    """The symbols of each tree behind padding, and one place more."""
    sizes = _sizes(levels)
    row, begin = np.arange(len(sizes[0])), length - sizes[0]  # of each node's symbols
    tokens = np.full((len(row), length + 1), PADDING)
    for n, (level, size) in enumerate(zip(levels, sizes, strict=True)):
        if n:
            before = np.cumsum(size) - size  # of all nodes, then of arguments of the same list
            own = levels[n - 1].arity > 0
            first = np.zeros(len(own), np.int64)
            first[own] = before[np.cumsum(levels[n - 1].arity)[own] - levels[n - 1].arity[own]]
            row, begin = row[level.of], begin[level.of] + 1 + before - first[level.of]
        tokens[row, begin] = level.symbol
        tokens[row[level.lists], (begin + size - 1)[level.lists]] = CLOSE
    return tokens
