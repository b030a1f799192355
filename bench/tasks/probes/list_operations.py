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
    """The nodes of all trees at one depth, each (N, S): whether there is one, whether it is a list,
    and its symbol."""

    there: np.ndarray
    lists: np.ndarray
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
        values, sizes = self._read(levels)
        fits = (sizes[0][:, 0] <= length) & (sizes[0][:, 0] > length // 2)
        levels = [Level(*(part[fits] for part in level)) for level in levels]
        tokens = self._written(levels, [size[fits] for size in sizes], length)
        labels = np.full(tokens.shape, IGNORED)
        labels[:, length] = values[0][fits, 0]
        return Samples(tokens, labels)

    def _grown(self, rng: np.random.Generator, count: int) -> list[Level]:
        """Random trees, from their roots on."""
        levels: list[Level] = []
        there = np.ones((count, 1), bool)
        for level in range(self.depth + 1):
            nested = (rng.random(there.shape) < NESTED) | (level == 0)
            lists = there & nested & (level < self.depth)
            function, digit = (rng.integers(*r, size=there.shape) for r in ((MAX, CLOSE), (0, 10)))
            levels.append(Level(there, lists, np.where(lists, function, digit)))
            arity = rng.integers(2, self.arguments + 1, size=(*there.shape, 1))
            there = (lists[:, :, None] & (np.arange(self.arguments) < arity)).reshape(count, -1)
        return levels

    def _read(self, levels: Sequence[Level]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Value of each node, and how many symbols it takes."""
        values = [level.symbol for level in levels]
        sizes = [level.there.astype(np.int64) for level in levels]
        for n in reversed(range(self.depth)):
            _, lists, symbol = levels[n]
            inner, inner_sizes = (self._by_list(x[n + 1]) for x in (values, sizes))
            values[n] = np.where(lists, _applied(symbol, inner, inner_sizes), symbol)
            sizes[n] = np.where(lists, 2 + inner_sizes.sum(2), sizes[n])
        return values, sizes

    def _written(
        self, levels: Sequence[Level], sizes: Sequence[np.ndarray], length: int
    ) -> np.ndarray:
        """The symbols of each tree behind padding, and one place more."""
        count = len(sizes[0])
        tokens = np.full((count, length + 1), PADDING)
        begin = length - sizes[0]  # of each node's symbols
        for n, (there, lists, symbol) in enumerate(levels):
            rows = np.broadcast_to(np.arange(count)[:, None], there.shape)
            tokens[rows[there], begin[there]] = symbol[there]
            if n < self.depth:
                tokens[rows[lists], (begin + sizes[n] - 1)[lists]] = CLOSE
                inner = self._by_list(sizes[n + 1])
                before = inner.cumsum(2) - inner
                begin = (begin[:, :, None] + 1 + before).reshape(count, -1)
        return tokens

    def _by_list(self, nodes: np.ndarray) -> np.ndarray:
        """(N, S k) -> (N, S, k)."""
        return nodes.reshape(len(nodes), nodes.shape[1] // self.arguments, self.arguments)

    def guessers(self, samples: Samples) -> list[Guesser]:
        answers = samples.labels[:, -1]
        most = np.bincount(answers, minlength=10).argmax()
        return [
            Guesser("most frequent", f"always {most}", (answers == most).astype(np.float64)),
            Guesser("digits", "any digit", np.full(len(answers), 0.1)),
        ]


def _applied(symbol: np.ndarray, values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The value of each list of arguments (N, S, k), of which those of no size are not there."""
    there = sizes > 0
    count = there.sum(2)
    ordered = np.sort(np.where(there, values, 10), 2)
    around = np.stack(
        [np.maximum(count - 1, 0) // 2, count // 2], 2
    )  # of an odd count both the same
    median = np.take_along_axis(ordered, around, 2).sum(2) // 2
    return np.select(
        [symbol == MAX, symbol == MIN, symbol == MED],
        [np.where(there, values, -1).max(2), ordered[:, :, 0], median],
        (values * there).sum(2) % 10,
    )
