"""Random choices that several probes make, for many sequences at once.

Shapes: N sequences.
"""

import numpy as np


def distinct(rng: np.random.Generator, rows: int, count: int, pool: int) -> np.ndarray:
    """`count` different numbers below `pool` in random order for each row, (rows, count)."""
    assert count <= pool
    if count * count > pool:
        return np.argsort(rng.random((rows, pool), dtype=np.float32), axis=1)[:, :count]
    # Rows with a number twice are few, and are drawn again: all orders stay as likely.
    found = rng.integers(pool, size=(rows, count))
    again = np.arange(rows)
    while len(again := again[_repeats(found[again])]):
        found[again] = rng.integers(pool, size=(len(again), count))
    return found


def _repeats(rows: np.ndarray) -> np.ndarray:
    """Of each row, whether it holds a number twice."""
    ordered = np.sort(rows, axis=1)
    return (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)


def weighted(rng: np.random.Generator, rows: int, count: int, weights: np.ndarray) -> np.ndarray:
    """`count` different places of each row in the order in which they are drawn by weight.

    The arrivals of independent exponential clocks are such an order (Efraimidis and Spirakis 2006).
    """
    arrivals = rng.exponential(size=(rows, len(weights))) / weights
    return np.argsort(arrivals, axis=1)[:, :count]


def places(rng: np.random.Generator, rows: int, count: int, room: int) -> np.ndarray:
    """`count` different places below `room` for each row, in rising order."""
    keys = rng.random((rows, room), dtype=np.float32)
    return np.sort(np.argpartition(keys, count - 1, axis=1)[:, :count], axis=1)
