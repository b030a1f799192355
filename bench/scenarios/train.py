"""Throughput and memory of a training step: forward, backward and the suite's own optimizer."""

from typing import Any

import torch

from bench.meters.memory import nbytes, peak_of
from bench.meters.time import measure
from bench.scenarios.base import Context, count_units
from bench.training import Trainer


def run(context: Context) -> dict[str, Any]:
    context.require_trainable()
    model = context.build().train()
    batch = context.on_device(context.task.example(context.batch_size))
    # The rate stays where it is however many steps the measurement takes.
    trainer = Trainer(model, context.recipe, steps=1_000_000, dtype=context.dtype)

    def step() -> None:
        trainer.step(batch)

    timing = measure(step, context.limits, context.device)
    units = count_units(context, batch)
    moments = [
        value
        for optimizer in trainer.optimizers
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    memory = peak_of(step, model, context.device, others=moments)
    memory["gradients_bytes"] = nbytes(p.grad for p in model.parameters())
    memory["optimizer_bytes"] = nbytes(moments)
    # What is left of the peak when all that outlives the step is taken away.
    lasting = ("parameters_bytes", "gradients_bytes", "optimizer_bytes")
    memory["activations_bytes"] = memory["peak_bytes"] - sum(memory[key] for key in lasting)
    return {
        "timing": timing.as_record(units, context.task.unit),
        "figures": {"train_per_s": units / timing.median_s},
        "memory": memory,
        "validity": {"valid": timing.valid, "reason": timing.reason},
    }
