"""Writing symbol by symbol from a state, greedily: throughput, latencies, the size of the state."""

from typing import Any

from bench.meters.allocator import nbytes
from bench.meters.flops import count, settle
from bench.meters.latency import first_token, percentiles, samples_for
from bench.meters.memory import tensors_in
from bench.meters.time import measure
from bench.protocol import Costed, Recurrent
from bench.scenarios.base import Context, Unsupported
from bench.scenarios.measured import inference_memory, predicted, state_figures, throughput
from bench.scenarios.writing import STATELESS, Writer


def run(context: Context) -> dict[str, Any]:
    model = context.inference_model()
    if not isinstance(model, Recurrent):
        raise Unsupported(STATELESS)
    scenario = context.scenario
    batch = int(scenario["batch_size"])
    prompt = context.task.example(batch, int(scenario["prompt"]))["tokens"].to(context.device)
    writer = Writer(model, prompt, int(scenario["tokens"]))

    def first() -> None:
        writer.ready()
        writer.write()

    context.require_compiled(model, first)
    writing = measure(
        writer.write, context.limits, context.device, before=writer.ready, wanted=samples_for(0.99)
    )
    # Reading the prompt and choosing the first token, from samples of its own.
    reading = measure(writer.read, context.limits, context.device)
    state_bytes = nbytes(tensors_in(writer.state))
    result = throughput(
        context, writing, batch, writer.write, writer.ready, {"time to first token": reading}
    )
    result["figures"] |= state_figures(context, model, int(scenario["state_context"]))
    return {
        **result,
        "latency": {
            **first_token(reading, prompt.shape[1]),
            **percentiles(writing.samples_s),
        },
        "memory": {
            **inference_memory(context, model, writer.write, before=writer.read),
            "state_bytes": state_bytes,
            "predicted": predicted(model, context.dtype, prompt),
        },
        "cost": settle(count(writer.write), step_flops(context, model, batch, prompt.shape[1])),
    }


def step_flops(context: Context, model: Recurrent, batch: int, prompt: int) -> int | None:
    """FLOPs of one more symbol by the model's formula, where it states one.

    Where the state grows, that is what the sequence costs more than the one without the symbol;
    where it does not, the symbol costs what a sequence of one does (longer ones may be cheaper or
    dearer a symbol: parallel forms work in chunks).
    """
    if not isinstance(model, Costed):
        return None
    sizes = [model.state_bytes(batch, length, context.dtype) for length in (prompt, 64 * prompt)]
    if sizes[0] == sizes[1]:
        return model.flops(batch, 1)
    longer, shorter = model.flops(batch, prompt + 1), model.flops(batch, prompt)
    return None if longer is None or shorter is None else longer - shorter
