"""Throughput of drawing whole items: images of given classes, or texts of one context."""

from typing import Any

import torch

from bench.meters.memory import peak_of
from bench.meters.time import measure
from bench.protocol import Sampler, Stateful
from bench.scenarios.base import Context, Unsupported


def run(context: Context) -> dict[str, Any]:
    model = context.inference_model()
    if not isinstance(model, Sampler):
        raise Unsupported("the model has no sample method")
    batch = int(context.scenario["batch_size"][context.kind])
    example = context.on_device(context.task.example(batch))
    generator = torch.Generator(context.device).manual_seed(int(context.config["seed"]))

    def call() -> None:
        if context.kind == "language":
            model.sample(batch, length=example["tokens"].shape[1], generator=generator)
        else:
            model.sample(batch, condition=example["condition"], generator=generator)

    context.require_compiled(model, call)
    timing = measure(call, context.limits, context.device)
    units = example["tokens"].numel() if context.kind == "language" else batch
    figures: dict[str, Any] = {"sample_per_s": units / timing.median_s}
    if isinstance(model, Stateful):
        figures["state_context"] = context.task.symbols_per_item
        figures["state_bytes"] = model.state_bytes(1, figures["state_context"], context.dtype)
    return {
        "timing": timing.as_record(units, context.task.unit),
        "figures": figures,
        "memory": peak_of(call, model, context.device),
        "validity": {"valid": timing.valid, "reason": timing.reason},
    }
