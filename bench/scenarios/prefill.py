"""Throughput of reading: a prompt into a state, or images through one forward pass."""

from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.allocator import nbytes
from bench.meters.flops import count, settle
from bench.meters.memory import tensors_in
from bench.meters.time import measure
from bench.protocol import Recurrent, State
from bench.scenarios.base import Context, count_units, stated_flops
from bench.scenarios.measured import inference_memory, predicted, throughput


def run(context: Context) -> dict[str, Any]:
    model = context.inference_model()
    batch = context.on_device(context.task.example(context.scenario["batch_size"][context.kind]))

    @torch.no_grad()
    def call() -> State:
        return read(model, context.kind, batch)

    context.require_compiled(model, call)
    timing = measure(call, context.limits, context.device)
    memory = inference_memory(context, model, call)
    state = call()
    if state is not None:
        memory["state_bytes"] = nbytes(tensors_in(state))
    memory["predicted"] = predicted(
        model, context.dtype, None if state is None else batch["tokens"]
    )
    return {
        **throughput(context, timing, count_units(context, batch), call),
        "memory": memory,
        "cost": settle(count(call), stated_flops(context, model, batch)),
    }


def read(model: nn.Module, kind: str, batch: dict[str, Tensor]) -> State | None:
    """The state after the batch, where the model keeps one."""
    if kind == "language" and isinstance(model, Recurrent):
        return model.prefill(batch["tokens"])[1]
    if kind == "classify":
        model.classify(batch["pixels"])  # type: ignore[operator]
    else:
        model(**{name: value for name, value in batch.items() if name != "labels"})
    return None
