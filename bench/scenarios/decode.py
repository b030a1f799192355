"""Writing symbol by symbol from a state, greedily: throughput, latencies, size of the state."""

from typing import Any

import numpy as np

from bench.meters.memory import nbytes, tensors_in
from bench.meters.time import Timing, measure
from bench.protocol import Costed, Recurrent
from bench.scenarios.base import Context, Unsupported, speed
from bench.scenarios.writing import START, Writer

PERCENTILES = (50, 95, 99)


def run(context: Context) -> dict[str, Any]:
    model = context.inference_model()
    if not isinstance(model, Recurrent):
        raise Unsupported("the model has no prefill and step, so it does not decode from a state")
    scenario = context.scenario
    batch, prompt = int(scenario["batch_size"]), int(scenario["prompt"])
    tokens = context.task.example(batch, prompt)["tokens"].to(context.device)
    writer = Writer(model, tokens, int(scenario["tokens"]))

    def first() -> None:
        writer.read()
        writer.write()

    context.require_compiled(model, first)
    timing = measure(writer.write, context.limits, context.device, before=writer.ready)
    first_token = measure(writer.read, context.limits, context.device)
    stated = step_flops(model, batch, prompt, context) if isinstance(model, Costed) else None
    held = nbytes(tensors_in(writer.state))
    found = speed(context, model, writer.write, timing, batch, stated=stated)
    state_context = int(scenario["state_context"])
    found["figures"] |= {
        "state_bytes": model.state_bytes(1, state_context, context.dtype),
        "state_context": state_context,
    }
    found["memory"] |= {
        "state_bytes": held,
        "predicted": {"state_bytes": model.state_bytes(batch, prompt + START, context.dtype)},
    }
    found["latency"] = latency(prompt, first_token, timing)
    return found


def latency(prompt: int, first_token: Timing, following: Timing) -> dict[str, Any]:
    """Time to the first token from an empty state, and percentiles of those that follow.

    A percentile is null where fewer than one sample is expected beyond it.
    """
    low, high = first_token.interval_s
    samples = following.samples_s
    return {
        "prompt": prompt,
        "ttft_s": first_token.median_s,
        "ttft_ci_low_s": low,
        "ttft_ci_high_s": high,
        "ttft_samples_s": first_token.samples_s,
        **{
            f"p{q}_s": float(np.percentile(samples, q)) if len(samples) * (100 - q) >= 100 else None
            for q in PERCENTILES
        },
    }


def step_flops(model: Any, batch: int, prompt: int, context: Context) -> int:
    """FLOPs of one more symbol by the model's formula.

    Where the state grows, that is what the sequence costs more than the one without the symbol;
    where it does not, the symbol costs what a sequence of one does (longer ones may be cheaper or
    dearer a symbol: parallel forms work in chunks).
    """
    sizes = [model.state_bytes(batch, length, context.dtype) for length in (prompt, 64 * prompt)]
    if sizes[0] == sizes[1]:
        return int(model.flops(batch, 1))
    return int(model.flops(batch, prompt + 1) - model.flops(batch, prompt))
