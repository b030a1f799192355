"""Interpolated Kneser-Ney n-grams over bytes, the plain rival of the language models.

Kneser & Ney 1995, "Improved backing-off for m-gram language modeling", in the interpolated form
of Chen & Goodman 1998, "An empirical study of smoothing techniques", eq. 4.7.

Symbols: N positions, k symbols of history, `count` c(h, w), `distinct` N1+(h, .), `discount` D.

Deviations: the discount is smoothed, so that it never is zero; below the highest order the counts
of continuation are used also at the start of a window, where no longer history exists.
"""

from dataclasses import dataclass

import numpy as np

SYMBOLS = 256


@dataclass(frozen=True)
class Level:
    """Counts of one order: keys are histories of k bytes with the next one as the low byte."""

    keys: np.ndarray  # sorted (history, symbol)
    counts: np.ndarray
    histories: np.ndarray  # sorted
    totals: np.ndarray
    distinct: np.ndarray
    discount: float


def _level(keys: np.ndarray, counts: np.ndarray) -> Level:
    histories, first = np.unique(keys >> 8, return_index=True)
    totals = np.add.reduceat(counts, first)
    distinct = np.diff(np.append(first, len(keys)))
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    # D = n1 / (n1 + 2 n2), Chen & Goodman, eq. 4.10, smoothed: bytes that all occur often would
    # give D = 0 and with it probability 0 to any byte that train lacks.
    discount = (once + 0.5) / (once + 2 * twice + 1)
    return Level(keys, counts, histories, totals, distinct, discount)


def _grams(data: np.ndarray, length: int) -> np.ndarray:
    """All strings of `length` bytes as integers, the last byte lowest."""
    count = len(data) - length + 1
    grams = np.zeros(count, dtype=np.int64)
    for i in range(length):
        grams = grams << 8 | data[i : i + count]
    return grams


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values of the wanted keys, zero where there is none."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


class NGram:
    """p(symbol | up to `order` - 1 bytes before it)."""

    def __init__(self, train: np.ndarray, order: int) -> None:
        if not 1 <= order <= 7:
            raise ValueError(f"order={order} is not allowed; an integer holds orders 1 to 7")
        if len(train) < order:
            raise ValueError(f"train has {len(train)} bytes; order {order} needs that many")
        self.order = order
        keys, counts = np.unique(_grams(train, order), return_counts=True)
        levels = [_level(keys, counts)]
        for length in range(order - 1, 0, -1):
            # Continuation count: in how many distinct contexts one byte longer the string stands.
            shorter = keys & ((1 << 8 * length) - 1)
            keys, counts = np.unique(shorter, return_counts=True)
            levels.insert(0, _level(keys, counts))
        self.levels = levels

    def probability(
        self, history: np.ndarray, available: np.ndarray, symbol: np.ndarray
    ) -> np.ndarray:
        """p of each symbol (N,) after `history` (N,), bytes packed with the latest one lowest.

        Only the last `available` (N,) bytes of a history are known.
        """
        p = np.full(len(symbol), 1 / SYMBOLS)
        for k, level in enumerate(self.levels):
            recent = history & ((1 << 8 * k) - 1)
            total = _look_up(level.histories, level.totals, recent)
            distinct = _look_up(level.histories, level.distinct, recent)
            count = _look_up(level.keys, level.counts, recent << 8 | symbol)
            # p_k(w|h) = max(c(h,w) - D, 0) / c(h) + D N1+(h,.) / c(h) p_{k-1}(w|h')
            safe = np.maximum(total, 1)
            mixed = np.maximum(count - level.discount, 0) / safe
            mixed = mixed + level.discount * distinct / safe * p
            p = np.where((total > 0) & (available >= k), mixed, p)
        return p

    def distribution(self, history: bytes) -> np.ndarray:
        """p of all 256 symbols after a history."""
        packed = int.from_bytes(history[-6:], "big")
        every = np.ones(SYMBOLS, dtype=np.int64)
        return self.probability(packed * every, len(history) * every, np.arange(SYMBOLS))

    def bits(self, windows: np.ndarray) -> np.ndarray:
        """-log2 p of every byte given those before it in its window, (N, T) -> (N, T)."""
        count, length = windows.shape
        history = np.zeros((count, length), dtype=np.int64)
        for back in range(1, min(self.order, length)):
            history[:, back:] |= windows[:, :-back].astype(np.int64) << 8 * (back - 1)
        available = np.broadcast_to(np.arange(length), (count, length))
        p = self.probability(history.ravel(), available.ravel(), windows.ravel().astype(np.int64))
        return -np.log2(p).reshape(count, length)
