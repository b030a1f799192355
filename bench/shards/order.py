"""In which order windows are shown: a function of seed and position that needs no memory.

A shuffled list of the starts of 5 GB in windows of 256 bytes takes 160 MB and a second, and where
training stopped could be found again only by shuffling anew. Instead a Feistel network of a few
rounds (Luby and Rackoff 1988) permutes the numbers below a power of two, and what lands beyond the
number of windows is permuted again until it does not (cycle walking: Black and Rogaway 2002). Any
position is reached at once.
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]
ROUNDS = 6
# Multipliers of splitmix64's last steps (Steele, Lea and Flood 2014).
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Order:
    """Epochs of `count` windows of `context` symbols over a part of `symbols`.

    Each epoch cuts the part at another random offset, as task text does, and shows each of its
    windows once. There are as many windows at any offset, so that a number names a window.
    """

    def __init__(self, symbols: int, context: int, seed: int) -> None:
        assert symbols >= context >= 1
        self.context, self.seed = context, seed
        self.count = max((symbols - context + 1) // context, 1)
        self.offsets = min(context, symbols - self.count * context + 1)

    def starts(self, first: int, count: int) -> NDArray[np.int64]:
        """Where the windows of number `first` to `first + count - 1` begin, (count,)."""
        found = np.empty(count, dtype=np.int64)
        at = 0
        while at < count:
            epoch, rank = divmod(first + at, self.count)
            size = min(count - at, self.count - rank)
            *keys, draw = np.random.SeedSequence([self.seed, epoch]).generate_state(
                ROUNDS + 1, np.uint64
            )
            ranks = np.arange(rank, rank + size, dtype=np.uint64)
            shuffled = permuted(ranks, self.count, keys).astype(np.int64)
            found[at : at + size] = int(draw) % self.offsets + shuffled * self.context
            at += size
        return found


def permuted(numbers: Numbers, count: int, keys: list[np.uint64]) -> Numbers:
    """Numbers below `count` under the permutation of range(count) that `keys` stand for."""
    bits = max((count - 1).bit_length(), 2)
    found = _network(numbers, bits, keys)
    while (beyond := found >= count).any():
        found[beyond] = _network(found[beyond], bits, keys)
    return found


def _network(numbers: Numbers, bits: int, keys: list[np.uint64]) -> Numbers:
    """A permutation of the numbers of `bits` bits: each half in turn changes by the other."""
    low = np.uint64(bits // 2)
    right_mask = np.uint64((1 << (bits // 2)) - 1)
    left_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    left, right = numbers >> low, numbers & right_mask
    for turn, key in enumerate(keys):
        if turn % 2:
            right = right ^ (_mixed(left, key) & right_mask)
        else:
            left = left ^ (_mixed(right, key) & left_mask)
    return (left << low) | right


def _mixed(numbers: Numbers, key: np.uint64) -> Numbers:
    mixed = (numbers ^ key) * FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * SECOND
    return mixed ^ (mixed >> np.uint64(31))
