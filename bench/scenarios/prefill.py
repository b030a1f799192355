"""Throughput of reading: a prompt into a state, or images through one forward pass."""

from typing import Any

import torch
from torch import Tensor

from bench.meters.memory import nbytes, tensors_in
from bench.meters.time import measure
from bench.protocol import Recurrent
from bench.scenarios.base import Context, count_units, speed, stated_flops
from bench.scenarios.writing import START


def run(context: Context) -> dict[str, Any]:
    model = context.inference_model()
    batch = context.on_device(context.task.example(context.scenario["batch_size"][context.kind]))

    @torch.no_grad()
    def read() -> Any:
        """The state, where reading leaves one."""
        if context.kind == "language" and isinstance(model, Recurrent):
            return model.prefill(batch["tokens"])[1]
        if context.kind == "classify":
            model.classify(batch["pixels"])  # type: ignore[operator]
        else:
            model(**{name: value for name, value in batch.items() if name != "labels"})
        return None

    context.require_compiled(model, read)
    timing = measure(read, context.limits, context.device)
    units = count_units(context, batch)
    stated = stated_flops(context, model, batch)
    found = speed(context, model, read, timing, units, stated=stated)
    state = read()
    if state is not None and isinstance(model, Recurrent):
        sequences, length = batch["tokens"].shape
        found["memory"] |= _state(model, state, sequences, length + START, context.dtype)
    return found


def _state(
    model: Recurrent, state: Any, batch: int, context: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Bytes that a state holds, and what the model's formula says of them."""
    held: list[Tensor] = list(tensors_in(state))
    return {
        "state_bytes": nbytes(held),
        "predicted": {"state_bytes": model.state_bytes(batch, context, dtype)},
    }
