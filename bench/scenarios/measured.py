"""Sections of a record that the timed scenarios share.

A scenario's `run` returns its sections side by side; a further meter adds one there.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.energy import measure_energy
from bench.meters.memory import peak_of
from bench.meters.process import peak_during
from bench.meters.time import Timing
from bench.parameters import count
from bench.protocol import Stateful
from bench.scenarios.base import Context
from bench.scenarios.writing import START


def throughput(
    context: Context,
    timing: Timing,
    units: int,
    call: Callable[[], object],
    before: Callable[[], object] = lambda: None,
    others: Mapping[str, Timing] | None = None,
) -> dict[str, Any]:
    """Timing of a `call` that handles `units` tokens or images, its rate, validity and energy.

    `others` are further timings by name on which the record's validity depends.
    """
    flaws = [timing.reason] if timing.reason else []
    flaws += [f"{name}: {t.reason}" for name, t in (others or {}).items() if t.reason]
    energy = (
        {"energy": measure_energy(call, timing.median_s, units, context.device, before)}
        if context.energy
        else {}
    )
    return {
        **energy,
        "timing": timing.as_record(units, context.task.unit),
        "figures": {f"{context.scenario['name']}_per_s": units / timing.median_s},
        "validity": {"valid": not flaws, "reason": "; ".join(flaws) or None},
    }


def state_figures(context: Context, model: nn.Module, symbols: int) -> dict[str, int]:
    """What one sequence carries after `symbols` by the model's formula, where it has one."""
    if not isinstance(model, Stateful):
        return {}
    return {
        "state_bytes": model.state_bytes(1, symbols, context.dtype),
        "state_context": symbols,
    }


def inference_memory(
    context: Context,
    model: nn.Module,
    call: Callable[[], object],
    before: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Memory of a `call` that trains nothing, after `before`, whose own peak does not count."""
    before()
    return {
        "rss_peak_bytes": peak_during(call),
        **peak_of(call, model, context.device, before=before),
    }


def predicted(model: nn.Module, dtype: torch.dtype, read: Tensor | None = None) -> dict[str, int]:
    """What formulas state of parameters in `dtype`, and of the state after tokens `read` (B, T)."""
    found = {"parameters_bytes": count(model).total * dtype.itemsize}
    if read is not None and isinstance(model, Stateful):
        batch, symbols = read.shape
        found["state_bytes"] = model.state_bytes(batch, symbols + START, dtype)
    return found
