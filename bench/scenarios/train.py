"""Throughput and memory of a training step: forward, backward and the suite's own optimizer."""

from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.allocator import nbytes, run_phases
from bench.meters.flops import Counted, count, settle
from bench.meters.memory import peak_over, tensors_of
from bench.meters.process import peak_during
from bench.meters.time import measure
from bench.scenarios.base import Context, count_units, stated_flops
from bench.scenarios.measured import predicted, throughput
from bench.training import PASSES, Trainer

ENDLESS = 1_000_000  # steps: the rate stays where it is however many of them are measured


def run(context: Context) -> dict[str, Any]:
    model = context.build().train()
    context.require_trainable(model)
    batch = context.on_device(context.task.example(context.batch_size))
    trainer = Trainer(model, context.recipe, steps=ENDLESS, dtype=context.dtype)

    def step() -> None:
        trainer.step(batch)

    timing = measure(step, context.limits, context.device)
    return {
        **throughput(context, timing, count_units(context, batch), step),
        "memory": {
            "rss_peak_bytes": peak_during(step),
            **step_memory(trainer, batch),
            "predicted": predicted(model, torch.float32) | trainer.predicted_bytes(),
        },
        "cost": step_cost(context, trainer, batch),
    }


def step_memory(trainer: Trainer, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Bytes of tensors by phase of a step, after one step at least has made the optimizer's."""
    model, device = trainer.model, trainer.device
    model.zero_grad(set_to_none=True)
    moments = trainer.moments()
    losses: list[Tensor] = []

    def update() -> None:
        losses.pop().backward()
        trainer.update()

    phases = run_phases(
        {
            "forward": lambda: losses.append(trainer.loss(batch)),
            "update": update,
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


def flops_per_item(context: Context, model: nn.Module) -> float | None:
    """FLOPs of a step over its items; None where they are not known. It changes the weights."""
    trainer = Trainer(model.train(), context.recipe, steps=1, dtype=context.dtype)
    batch = context.on_device(context.task.example(context.batch_size))
    with torch.compiler.set_stance("force_eager"):  # operators are counted one by one
        flops = step_cost(context, trainer, batch)["flops"]
    return None if flops is None else flops / context.batch_size


def step_cost(context: Context, trainer: Trainer, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Forward and backward against the model's formula, then what the optimizer adds."""
    trainer.model.zero_grad(set_to_none=True)  # as in a step: nothing to add the gradients to
    gradients = count(lambda: trainer.loss(batch).backward())
    forward = stated_flops(context, trainer.model, batch, training=True)
    cost = settle(gradients, None if forward is None else PASSES * forward)
    update: Counted = count(trainer.update)
    cost["counted"] += update.flops
    cost["bytes_moved"] += update.bytes_moved
    cost["uncounted"] = [*dict.fromkeys([*cost["uncounted"], *update.unknown])]
    for name in ("flops", "formula"):
        if cost[name] is not None:
            cost[name] += update.flops
    return cost
