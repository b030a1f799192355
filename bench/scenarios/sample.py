"""Throughput of drawing whole items: images of given classes, or texts of one context."""

from typing import Any

import torch

from bench.meters.flops import count, settle
from bench.meters.latency import percentiles
from bench.meters.time import measure
from bench.protocol import Sampler
from bench.scenarios.base import Context, Unsupported
from bench.scenarios.measured import inference_memory, predicted, state_figures, throughput


def run(context: Context) -> dict[str, Any]:
    model = context.inference_model()
    if not isinstance(model, Sampler):
        raise Unsupported("the model has no sample method")
    batch = int(context.scenario["batch_size"][context.kind])
    example = context.on_device(context.task.example(batch))
    generator = torch.Generator(context.device).manual_seed(int(context.config["seed"]))

    def draw() -> None:
        if context.kind == "language":
            model.sample(batch, length=example["tokens"].shape[1], generator=generator)
        else:
            model.sample(batch, condition=example["condition"], generator=generator)

    context.require_compiled(model, draw)
    timing = measure(draw, context.limits, context.device)
    units = example["tokens"].numel() if context.kind == "language" else batch
    result = throughput(context, timing, units, draw)
    result["figures"] |= state_figures(context, model, context.task.symbols_per_item)
    return {
        **result,
        # All items of a batch come at once. No first token is timed: `sample` returns whole items.
        "latency": percentiles(timing.samples_s),
        "memory": {
            **inference_memory(context, model, draw),
            "predicted": predicted(model, context.dtype),
        },
        "cost": settle(count(draw), None),
    }
