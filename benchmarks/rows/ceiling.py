"""The rate of matrix products of this machine: the most that arithmetic can be asked for."""

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.ab import seconds_of
from models.backbones.linear import linear

SIDES = (512, 1024, 2048)
CALLS = 7


@torch.no_grad()
def product_rate() -> float:
    """FLOP/s of the fastest square product in fp32, torch's or ours, with torch's threads."""
    return max(max(_rate(side, F.linear), _rate(side, linear)) for side in SIDES)


def _rate(side: int, product: Callable[[Tensor, Tensor], Tensor]) -> float:
    a, b = (torch.randn(side, side) for _ in range(2))
    product(a, b)
    seconds = [seconds_of(lambda: product(a, b)) for _ in range(CALLS)]
    return 2 * side**3 / statistics.median(seconds)
