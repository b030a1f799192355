"""One point of a search for the largest batch or context: does this much fit, at which peak?

`bench.frontier` picks the values and runs each in a process of its own: a failed allocation must
neither end the search nor leave a heap in pieces to the next value.
"""

from collections.abc import Callable
from typing import Any

import torch

from bench.meters.allocator import METHODS, run_phases
from bench.meters.process import peak_during, resident_bytes
from bench.protocol import Recurrent
from bench.scenarios.base import Context, Unsupported
from bench.scenarios.prefill import read
from bench.scenarios.train import ENDLESS
from bench.scenarios.writing import STATELESS, Writer
from bench.training import Trainer

Call = Callable[[], object]
PIECE = 128  # symbols read at once before writing: the state is to limit, not the reading
WRITTEN = 2


def run(context: Context) -> dict[str, Any]:
    """The point at `scenario.at`, which the search has set."""
    batch, length = sides(context)
    call = MODES[context.scenario["mode"]](context, batch, length)
    start = resident_bytes()
    return {"point": {"start_bytes": start, **_peak(call, context.device)}}


def sides(context: Context) -> tuple[int, int | None]:
    """Items and their symbols; None: as many symbols as the task's own items have."""
    scenario = context.scenario
    value, length = int(scenario["at"]), scenario["context"]
    if context.kind != "language":
        if scenario["axis"] == "context" or length is not None:
            raise Unsupported(
                f"the images of task={context.config['task']['name']} have one size; allowed: "
                "scenario.axis=batch with scenario.context=null"
            )
        return value, None
    if scenario["axis"] == "context":
        return int(scenario["batch_size"]), value
    return value, None if length is None else int(length)


def _peak(call: Call, device: torch.device) -> dict[str, Any]:
    """The most that the process held (CPU) or that torch had handed out (CUDA) during `call`."""
    if device.type != "cpu":
        phase = run_phases({"call": call}, (), device)["call"]
        return {"peak_bytes": phase.peak, "method": METHODS[device.type]}
    peak = peak_during(call)
    if peak is None:  # where it cannot be told, the call is not made; it must fit all the same
        call()
    return {"peak_bytes": peak, "method": "process RSS"}


def _training(context: Context, batch: int, length: int | None) -> Call:
    model = context.build().train()
    context.require_trainable(model)
    trainer = Trainer(model, context.recipe, steps=ENDLESS, dtype=context.dtype)
    items = context.on_device(context.task.example(batch, length))

    def steps() -> None:
        trainer.step(items)
        trainer.step(items)  # the optimizer's moments are there from now on

    return steps


def _reading(context: Context, batch: int, length: int | None) -> Call:
    model = context.inference_model()
    items = context.on_device(context.task.example(batch, length))

    @torch.no_grad()
    def call() -> None:
        read(model, context.kind, items)

    context.require_compiled(model, call)
    return call


def _writing(context: Context, batch: int, length: int | None) -> Call:
    model = context.inference_model()
    if not isinstance(model, Recurrent):
        raise Unsupported(STATELESS)
    tokens = context.on_device(context.task.example(batch, length))["tokens"]  # (B, T)
    first, *rest = tokens.split(PIECE, dim=1)
    writer = Writer(model, first, WRITTEN)

    @torch.no_grad()
    def call() -> None:
        writer.read()
        for piece in rest:
            logits, writer.state = model.prefill(piece, writer.state)
            writer.token = logits[:, -1].argmax(-1)
        for _ in range(WRITTEN):
            writer.write()

    context.require_compiled(model, call)
    return call


MODES: dict[str, Callable[[Context, int, int | None], Call]] = {
    "train": _training,
    "prefill": _reading,
    "decode": _writing,
}
