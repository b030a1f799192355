"""The rate of matrix products of this machine: the most that arithmetic can be asked for."""

import statistics

import torch

from benchmarks.ab import seconds_of

SIDES = (512, 1024, 2048)
CALLS = 7


def product_rate() -> float:
    """FLOP/s of the fastest square product in fp32, with torch's threads."""
    return max(_rate(side) for side in SIDES)


def _rate(side: int) -> float:
    a, b, c = (torch.randn(side, side) for _ in range(3))
    torch.matmul(a, b, out=c)
    seconds = [seconds_of(lambda: torch.matmul(a, b, out=c)) for _ in range(CALLS)]
    return 2 * side**3 / statistics.median(seconds)
