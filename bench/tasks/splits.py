"""The three parts of a task's data and who goes where; a leaf that loads no torch."""

import hashlib
import math
from collections.abc import Mapping, Sequence

SPLITS = ("train", "validation", "test")


def check_shares(shares: Sequence[float]) -> list[float]:
    """The shares of train, validation and test as numbers; ValueError where they are none."""
    numbers = [float(share) for share in shares]
    if len(numbers) != 3 or min(numbers) <= 0 or not math.isclose(sum(numbers), 1, abs_tol=1e-9):
        raise ValueError(
            f"task.shares={numbers} must be three positive numbers that sum to one, "
            f"for train, validation and test"
        )
    return numbers


def cuts(size: int, shares: Sequence[float]) -> list[int]:
    """Where `size` bytes are cut in three at the cumulative shares, both ends included."""
    total = 0.0
    found = [0]
    for share in shares:
        total += share
        found.append(round(size * total))
    return found


def assign(sizes: Mapping[str, int], shares: Sequence[float]) -> dict[str, str]:
    """Give whole documents to splits, walking them in the order of the hash of their names.

    Each goes to the split that is furthest below its share of the bytes walked so far. A plain
    hash of the names would do if documents were of one size; the manual's differ 100-fold.
    """
    have = dict.fromkeys(SPLITS, 0)
    walked = 0
    result = {}
    for name in sorted(sizes, key=lambda n: hashlib.sha256(n.encode()).digest()):
        walked += sizes[name]
        below = {s: share * walked - have[s] for s, share in zip(SPLITS, shares, strict=True)}
        result[name] = max(SPLITS, key=below.__getitem__)
        have[result[name]] += sizes[name]
    return result
