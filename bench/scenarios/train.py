"""Throughput and memory of a training step: forward, backward and the suite's own optimizer."""

from typing import Any

import torch
from torch import Tensor

from bench.meters.allocator import run_phases
from bench.meters.memory import nbytes, peak_over, tensors_in, tensors_of
from bench.meters.process import peak_during
from bench.meters.time import measure
from bench.scenarios.base import Context, count_units
from bench.scenarios.measured import predicted, throughput
from bench.training import Trainer


def run(context: Context) -> dict[str, Any]:
    context.require_trainable()
    model = context.build().train()
    batch = context.on_device(context.task.example(context.batch_size))
    # The rate stays where it is however many steps the measurement takes.
    trainer = Trainer(model, context.recipe, steps=1_000_000, dtype=context.dtype)
    timing = measure(lambda: trainer.step(batch), context.limits, context.device)
    return {
        **throughput(context, timing, count_units(context, batch)),
        "memory": {
            "rss_peak_bytes": peak_during(lambda: trainer.step(batch)),
            **step_memory(trainer, batch),
            "predicted": predicted(model, torch.float32) | trainer.predicted_bytes(),
        },
    }


def step_memory(trainer: Trainer, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Bytes of tensors by phase of a step, after one step at least has made the optimizer's."""
    model, device = trainer.model, trainer.device
    model.zero_grad(set_to_none=True)
    moments = list(tensors_in([optimizer.state for optimizer in trainer.optimizers]))
    losses: list[Tensor] = []
    phases = run_phases(
        {
            "forward": lambda: losses.append(trainer.forward(batch)),
            "update": lambda: trainer.update(losses.pop()),
        },
        [*tensors_of(model), *moments, *batch.values()],
        device,
    )
    return {
        **peak_over(phases.values(), model, device),
        "gradients_bytes": nbytes(p.grad for p in model.parameters()),
        "optimizer_bytes": nbytes(moments),
        "activations_bytes": phases["forward"].added,
    }
