"""The machine's own ceilings: the rate of matrix products, and the bandwidth of a copy.

A roofline (Williams, Waterman and Patterson 2009) is made of these two. They are measured, not read
from a data sheet, in the dtype and with the threads of the cell. The operands of the products are
random: a GPU multiplies equal numbers faster, since fewer of its bits flip and its power limit
binds later.
"""

from typing import Any

import torch

from bench.meters.time import Timing, measure
from bench.scenarios.base import Context

MIB = 1 << 20


def run(context: Context) -> dict[str, Any]:
    sides = context.scenario["sides"][context.device.type]
    products = {int(side): _product(context, int(side)) for side in sides}
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
            "copy_bytes_per_s": 2 * size / copy.median_s,  # each byte is read and written
            "copy_samples_s": copy.samples_s,
        },
        "validity": {"valid": not slack, "reason": "; ".join(slack) or None},
    }


def _product(context: Context, side: int) -> Timing:
    a, b = (torch.randn(side, side, dtype=context.dtype, device=context.device) for _ in range(2))
    c = torch.empty_like(a)

    def multiply() -> None:
        torch.matmul(a, b, out=c)

    return measure(multiply, context.limits, context.device)


def _copy(context: Context, size: int) -> Timing:
    source = torch.zeros(size, dtype=torch.uint8, device=context.device)
    target = torch.ones_like(source)

    def copy() -> None:
        target.copy_(source)

    return measure(copy, context.limits, context.device)
