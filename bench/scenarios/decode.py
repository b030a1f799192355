"""Throughput of writing symbol by symbol from a state, greedily, and the size of that state."""

from typing import Any

from bench.meters.memory import peak_of
from bench.meters.time import measure
from bench.protocol import Recurrent
from bench.scenarios.base import Context, Unsupported
from bench.scenarios.writing import Writer


def run(context: Context) -> dict[str, Any]:
    model = context.inference_model()
    if not isinstance(model, Recurrent):
        raise Unsupported("the model has no prefill and step, so it does not decode from a state")
    scenario = context.scenario
    batch = int(scenario["batch_size"])
    prompt = context.task.example(batch, int(scenario["prompt"]))["tokens"].to(context.device)
    writer = Writer(model, prompt, int(scenario["tokens"]))

    def first() -> None:
        writer.ready()
        writer.write()

    context.require_compiled(model, first)
    timing = measure(writer.write, context.limits, context.device, before=writer.ready)
    writer.ready()
    state_context = int(scenario["state_context"])
    return {
        "timing": timing.as_record(batch, context.task.unit),
        "figures": {
            "decode_per_s": batch / timing.median_s,
            "state_bytes": model.state_bytes(1, state_context, context.dtype),
            "state_context": state_context,
        },
        "memory": peak_of(writer.write, model, context.device),
        "validity": {"valid": timing.valid, "reason": timing.reason},
    }
