"""Throughput of drawing whole items: images of given classes, or texts of one context."""

from typing import Any

import torch

from bench.meters.time import measure
from bench.protocol import Sampler, Stateful
from bench.scenarios.base import Context, Unsupported, speed


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
    found = speed(context, model, call, timing, units)
    if isinstance(model, Stateful):
        state_context = context.task.symbols_per_item
        found["figures"] |= {
            "state_context": state_context,
            "state_bytes": model.state_bytes(1, state_context, context.dtype),
        }
    return found
