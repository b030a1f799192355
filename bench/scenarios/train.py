"""Throughput and memory of a training step: forward, backward and the suite's own optimizer."""

from typing import Any

from torch import Tensor

from bench.meters.flops import Counted, count, settle
from bench.meters.memory import kept_by_forward, nbytes
from bench.meters.time import measure
from bench.scenarios.base import Context, count_units, speed, stated_flops
from bench.training import Trainer

PASSES = 3  # backward costs two forward passes: gradients of the inputs and of the weights


def run(context: Context) -> dict[str, Any]:
    context.require_trainable()
    model = context.build().train()
    batch = context.on_device(context.task.example(context.batch_size))
    # The rate stays where it is however many steps the measurement takes.
    trainer = Trainer(model, context.recipe, steps=1_000_000, dtype=context.dtype)

    def step() -> None:
        trainer.step(batch)

    timing = measure(step, context.limits, context.device)
    gradients = nbytes(p.grad for p in model.parameters())
    moments = trainer.moments()
    found = speed(context, model, step, timing, count_units(context, batch), others=moments)
    found["memory"] |= {
        "gradients_bytes": gradients,
        "optimizer_bytes": nbytes(moments),
        "activations_bytes": kept_by_forward(
            lambda: trainer.loss(batch), model, [*batch.values(), *moments]
        ),
        "predicted": {
            "gradients_bytes": sum(p.nbytes for p in model.parameters() if p.requires_grad),
            "optimizer_bytes": trainer.moment_bytes(),
        },
    }
    found["cost"] = _cost(context, trainer, batch)
    return found


def _cost(context: Context, trainer: Trainer, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Forward and backward against the model's formula, then what the optimizer adds."""
    gradients = count(lambda: trainer.loss(batch).backward())
    forward = stated_flops(context, trainer.model, batch)
    passes = PASSES * getattr(trainer.model, "train_draws", 1)
    cost = settle(gradients, None if forward is None else passes * forward)
    update: Counted = count(trainer.update)
    cost["counted"] += update.flops
    cost["bytes_moved"] += update.bytes_moved
    for name in ("flops", "formula"):
        if cost[name] is not None:
            cost[name] += update.flops
    return cost
