"""The machine's own ceilings: the rate of matrix products, and the bandwidth of a copy.

A roofline (Williams, Waterman and Patterson 2009) is made of these two. They are measured, not read
from a data sheet, in the dtype and with the threads of the cell. The operands of the products are
random: a GPU multiplies equal numbers faster, since fewer of its bits flip and its power limit
binds later. On a CPU the faster of torch's two libraries is the ceiling, as a model may use either:
`torch.matmul`, which is MKL's or another BLAS's, and oneDNN's, by which convolutions go as well.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.meters.time import Timing, measure
from bench.scenarios.base import Context

MIB = 1 << 20
TRIALS = 3  # calls that show which of two forms is the faster one
LINEAR = "_linear_pointwise"  # torch's name for oneDNN's a b^T
Product = Callable[[Tensor, Tensor, Tensor], object]


def run(context: Context) -> dict[str, Any]:
    sides = context.scenario["sides"][context.device.type]
    products, by = {}, {}
    for side in map(int, sides):
        by[side], products[side] = _product(context, side)
    rates = {side: 2 * side**3 / timing.median_s for side, timing in products.items()}
    best = max(rates, key=lambda side: rates[side])
    size = int(context.scenario["copy_mib"][context.device.type]) * MIB
    copy = _copy(context, size)
    slack = [t.reason for t in (products[best], copy) if t.reason]
    return {
        "timing": products[best].as_record(2 * best**3, "FLOPs"),
        "figures": {
            "matmul_flops_per_s": rates[best],
            "matmul_side": best,
            "matmul_by": by[best],
            "copy_bytes_per_s": 2 * size / copy.median_s,  # each byte is read and written
            "copy_samples_s": copy.samples_s,
        },
        "validity": {"valid": not slack, "reason": "; ".join(slack) or None},
    }


def _product(context: Context, side: int) -> tuple[str, Timing]:
    """The faster form's name and time."""
    a, b = (torch.randn(side, side, dtype=context.dtype, device=context.device) for _ in range(2))
    c = torch.empty_like(a)
    forms = _forms(context)

    def trial(name: str) -> float:
        seconds = []
        for _ in range(TRIALS):
            begin = time.perf_counter()
            forms[name](a, b, c)
            seconds.append(time.perf_counter() - begin)
        return min(seconds)

    name = min(forms, key=trial) if len(forms) > 1 else next(iter(forms))
    multiply = forms[name]
    return name, measure(lambda: multiply(a, b, c), context.limits, context.device)


def _forms(context: Context) -> dict[str, Product]:
    """Products of two matrices by name; the third one is room that a form may use."""
    forms: dict[str, Product] = {"torch": lambda a, b, c: torch.matmul(a, b, out=c)}
    cpu = context.device.type == "cpu" and context.dtype == torch.float32
    if cpu and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, LINEAR):
        linear = getattr(torch.ops.mkldnn, LINEAR)
        forms["onednn"] = lambda a, b, c: linear(a, b, None, "none", [], "")
    return forms


def _copy(context: Context, size: int) -> Timing:
    source = torch.zeros(size, dtype=torch.uint8, device=context.device)
    target = torch.ones_like(source)

    def copy() -> None:
        target.copy_(source)

    return measure(copy, context.limits, context.device)
