"""Arithmetic and traffic of one call: torch's operator counter, cross-checked with formulas.

`torch.utils.flop_counter` knows matrix products, convolutions and attention on CUDA; attention on a
CPU is added here. It sees neither elementwise arithmetic, such as a recurrence spelled out, nor
kernels outside of torch. Models state formulas that count all of it (multiply-adds times two), so
each can catch the other: a figure on which they disagree without an explanation is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

AGREE = 0.05  # relative difference up to which counter and formula say the same
VISIBLE, WASTED = 0.5, 1.5  # shares of the formula between which the counter may lie
# Operators that move no data.
METADATA = ("aten::detach", "aten::alias", "aten::empty", "aten::_unsafe_view", "aten::sym_")
BUILT_IN = ("aten", "prim", "prims", "profiler")
Shape = Any


@dataclass(frozen=True)
class Counted:
    """What the operators of one call did; `unknown` are custom operators, which nobody counts."""

    flops: int
    bytes_moved: int
    unknown: tuple[str, ...]


class Traffic(TorchDispatchMode):
    """Sums up the bytes that every operator reads and writes, as if nothing stayed in a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_moved = 0
        self.unknown: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func.name())
        if name.partition("::")[0] not in BUILT_IN:
            self.unknown[name] = None
        if not func.is_view and not name.startswith(METADATA):
            tensors = [t for t in tree_iter((args, kwargs, result)) if isinstance(t, Tensor)]
            self.bytes_moved += sum(t.numel() * t.element_size() for t in tensors)
        return result


def _causal(flops: int, q: Shape, k: Shape, is_causal: bool) -> int:
    """Half of the scores are never computed where a symbol sees those before it alone."""
    return flops * (k[-2] + 1) // (2 * k[-2]) if is_causal and q[-2] == k[-2] else flops


def _attention(
    q: Shape, k: Shape, v: Shape, dropout_p: float = 0.0, is_causal: bool = False,
    *, attn_mask: Any = None, scale: float | None = None, out_shape: Shape = None,
) -> int:  # fmt: skip
    return _causal(sdpa_flop_count(q, k, v), q, k, is_causal)


def _attention_backward(
    grad_out: Shape, q: Shape, k: Shape, v: Shape, out: Shape, logsumexp: Shape,
    dropout_p: float = 0.0, is_causal: bool = False,
    *, attn_mask: Any = None, scale: float | None = None, out_shape: Shape = None,
) -> int:  # fmt: skip
    return _causal(sdpa_backward_flop_count(grad_out, q, k, v), q, k, is_causal)


ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def count(call: Callable[[], object]) -> Counted:
    """Run `call` once, untimed, and count."""
    traffic = Traffic()
    with FlopCounterMode(display=False, custom_mapping=ON_CPU) as counter, traffic:
        call()
    return Counted(counter.get_total_flops(), traffic.bytes_moved, tuple(traffic.unknown))


def settle(counted: Counted, stated: int | None) -> dict[str, Any]:
    """The `cost` section of a record: the figure to use, or why there is none."""
    cost: dict[str, Any] = {
        "flops": None,
        "counted": counted.flops,
        "formula": stated,
        "uncounted": list(counted.unknown),
        "bytes_moved": counted.bytes_moved,
    }
    if stated is None:
        if counted.unknown:
            names = ", ".join(counted.unknown)
            return {**cost, "reason": f"the counter does not know {names}, the model no formula"}
        return {**cost, "flops": counted.flops, "method": "counter"}
    share = counted.flops / stated
    if abs(share - 1) <= AGREE:
        return {**cost, "flops": counted.flops, "method": "counter, as the formula"}
    if VISIBLE <= share <= WASTED:
        # Below: the rest is elementwise, or done by a kernel that torch does not see into. Above:
        # operators do more than the model needs, as attention under a mask computes every score.
        return {**cost, "flops": stated, "method": f"formula, the counter sees {share:.0%}"}
    reason = f"the counter says {counted.flops:.3g}, the formula {stated:.3g}"
    return {**cost, "reason": reason}
