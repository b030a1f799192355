"""The order of windows: a permutation, by enumeration, at any position, and a random one."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from bench.shards.order import ROUNDS, Order, permuted


def keys(seed: int) -> list[np.uint64]:
    return list(np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64))


@pytest.mark.parametrize("count", [*range(1, 70), 255, 256, 257, 4096, 65_537, 300_001])
def test_every_number_comes_once(count: int) -> None:
    found = permuted(np.arange(count, dtype=np.uint64), count, keys(count))
    assert np.array_equal(np.sort(found), np.arange(count))


def test_all_permutations_of_few_are_equally_likely() -> None:
    """Chi-square over the 24 orders of four; 23 degrees of freedom reach 58 once in 10,000."""
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    draws = 4800
    for seed in range(draws):
        counts[tuple(permuted(np.arange(4, dtype=np.uint64), 4, keys(seed)).tolist())] += 1
    expected = draws / 24
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 58


def test_neighbours_and_places_tell_nothing() -> None:
    """Of a random permutation of n, correlations have a deviation of 1/sqrt(n)."""
    count = 100_003
    place = np.arange(count)
    for seed in range(5):
        found = permuted(place.astype(np.uint64), count, keys(seed)).astype(np.float64)
        for left, right in ((place, found), (found[:-1], found[1:]), (found[:-7], found[7:])):
            assert abs(np.corrcoef(left, right)[0, 1]) < 5 / math.sqrt(count)
        assert (found == place).sum() < 12  # 1 on average
        # A line of slope one, as an affine permutation has, would show in the steps.
        assert len(np.unique(np.diff(found))) > count / 2


@pytest.mark.parametrize(
    ("symbols", "context"), [(1000, 10), (1009, 10), (19, 10), (18, 10), (10, 10), (5, 1), (1, 1)]
)
def test_an_epoch_shows_every_window_once(symbols: int, context: int) -> None:
    order = Order(symbols, context, seed=3)
    offsets = set()
    for epoch in range(30):
        starts = order.starts(epoch * order.count, order.count)
        assert starts.min() >= 0
        assert starts.max() + context <= symbols
        first = starts.min()
        offsets.add(int(first))
        assert np.array_equal(np.sort(starts), first + context * np.arange(order.count))
    assert order.count >= max(symbols // context - 1, 1)
    assert offsets <= set(range(min(context, symbols - context + 1)))
    if symbols >= 2 * context - 1 > 1:
        assert len(offsets) > context / 2


def test_a_position_is_reached_at_once_and_equals_the_walk_there() -> None:
    order = Order(10_007, 16, seed=5)
    walk = order.starts(0, 3000)  # several epochs
    for first, count in ((0, 1), (617, 40), (order.count - 1, 3), (2999, 1)):
        assert np.array_equal(order.starts(first, count), walk[first : first + count])
    other = Order(10_007, 16, seed=6).starts(0, 3000)
    assert not np.array_equal(other, walk)
    epoch = walk[: order.count]
    assert not np.array_equal(epoch, walk[order.count : 2 * order.count])


def test_memory_does_not_grow_with_the_text() -> None:
    tracemalloc.start()
    Order(5 * 10**12, 256, seed=0).starts(10**9, 512)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
