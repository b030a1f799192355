"""Throughput of reading: a prompt into a state, or images through one forward pass."""

from typing import Any

import torch
from torch import nn

from bench.meters.memory import peak_of
from bench.meters.time import measure
from bench.protocol import Recurrent
from bench.scenarios.base import Context, count_units


def run(context: Context) -> dict[str, Any]:
    model = context.inference_model()
    batch = context.on_device(context.task.example(context.scenario["batch_size"][context.kind]))
    units = count_units(context, batch)

    @torch.no_grad()
    def call() -> None:
        _read(model, context.kind, batch)

    context.require_compiled(model, call)
    timing = measure(call, context.limits, context.device)
    return {
        "timing": timing.as_record(units, context.task.unit),
        "figures": {"prefill_per_s": units / timing.median_s},
        "memory": peak_of(call, model, context.device),
        "validity": {"valid": timing.valid, "reason": timing.reason},
    }


def _read(model: nn.Module, kind: str, batch: dict[str, torch.Tensor]) -> None:
    if kind == "language" and isinstance(model, Recurrent):
        model.prefill(batch["tokens"])
    elif kind == "classify":
        model.classify(batch["pixels"])  # type: ignore[operator]
    else:
        model(**{name: value for name, value in batch.items() if name != "labels"})
