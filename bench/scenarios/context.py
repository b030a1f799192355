"""Time of reading a context and of writing one symbol after it, and the state, against its length.

A point that would not fit the time or the memory that is left is predicted from the points before
it and skipped with the reason; once a point has run out of memory, longer ones are skipped too.
"""

import dataclasses
import gc
import math
import time
from typing import Any

from bench.errors import OUT_OF_MEMORY, describe
from bench.meters.allocator import nbytes
from bench.meters.memory import peak_of, tensors_in, tensors_of
from bench.meters.process import resident_bytes
from bench.meters.time import Limits, Timing, measure
from bench.process.limits import room_bytes
from bench.protocol import Recurrent
from bench.scenarios.base import Context, Unsupported
from bench.scenarios.writing import START, STATELESS, Writer

Point = dict[str, Any]
ROOM = 0.8  # share of the free memory that a point may be predicted to need
UNTIMED = 2  # readings at a point that are no samples: for the peak, and cold


def run(context: Context) -> dict[str, Any]:
    model = context.inference_model()
    if not isinstance(model, Recurrent):
        raise Unsupported(STATELESS)
    lengths = sorted({int(length) for length in context.scenario["lengths"]})
    sweep = _Sweep(context, model)
    points = [sweep.point(length) for length in lengths]
    done = [point for point in points if point["status"] == "ok"]
    if not done:
        raise Unsupported(points[0]["reason"])
    longest = done[-1]
    failed = [point["at"] for point in points if point["status"] == "failed"]
    slack = [point["at"] for point in done if not point["valid"]]
    reason = f"median not narrow enough at {', '.join(map(str, slack))}" if slack else None
    return {
        "timing": {"unit": context.task.unit},
        "figures": {
            "context": longest["at"],
            "context_prefill_per_s": sweep.batch * longest["at"] / longest["prefill_s"],
            "context_decode_per_s": sweep.batch / longest["step_s"],
        },
        "sweep": {
            "axis": "context",
            "batch": sweep.batch,
            "largest": longest["at"],
            "smallest_failed": failed[0] if failed else None,
            "points": points,
        },
        "validity": {"valid": not slack, "reason": reason},
    }


class _Sweep:
    """Measures lengths in rising order within what is left of the time."""

    def __init__(self, context: Context, model: Any) -> None:
        self.context, self.model = context, model
        self.batch = int(context.scenario["batch_size"])
        self.deadline = time.monotonic() + float(context.scenario["max_seconds"])
        self.done: list[Point] = []
        self.failure: str | None = None
        self.longest = min(
            (m.longest for m in model.modules() if getattr(m, "longest", None)), default=None
        )
        self.others = resident_bytes() - nbytes(tensors_of(model))  # held by no tensor

    def point(self, length: int) -> Point:
        """What was measured at `length`, or why nothing was."""
        if reason := self._hopeless(length):
            return {"at": length, "status": "skipped", "reason": reason}
        try:
            found = self._measured(length)
        except (MemoryError, RuntimeError) as error:
            reason = describe(error)
            if not reason.startswith(OUT_OF_MEMORY) or not self.done:
                raise  # a defect, or a model of which not even the shortest fits
            self.failure = f"{length} symbols ran out of memory"
            return {"at": length, "status": "failed", "reason": reason}
        finally:
            gc.collect()  # a state may be part of a cycle, and the next one is larger
        self.done.append(found)
        return found

    def _hopeless(self, length: int) -> str | None:
        if self.failure:
            return self.failure
        positions = START + length + int(self.context.scenario["steps"])
        if self.longest is not None and positions > self.longest:
            return f"{positions} positions needed, the model has {self.longest}"
        if len(self.done) < 2:
            return None
        left = self.deadline - time.monotonic()
        calls = UNTIMED + self._limits().warmup + self._limits().min_samples
        seconds = self._expected("prefill_s", length) * calls
        if seconds > left:
            return f"about {seconds:.0f} s needed, {max(left, 0):.0f} s left of max_seconds"
        if self.context.device.type != "cpu":
            return None  # what is free is told of the host's memory
        needed, free = self._expected("peak_bytes", length), self._room()
        if needed > ROOM * free:
            return f"about {needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free"
        return None

    def _room(self) -> int:
        """Bytes that the tensors of a point may take: freed ones stay in the heap for the next."""
        return room_bytes() + resident_bytes() - self.others

    def _expected(self, name: str, length: int) -> float:
        """A figure at a longer length, by the power law through the last two, at least a line."""
        before, last = self.done[-2:]
        power = math.log(last[name] / before[name]) / math.log(last["at"] / before["at"])
        return float(last[name]) * (length / last["at"]) ** max(power, 1.0)

    def _limits(self) -> Limits:
        seconds = float(self.context.scenario["point_seconds"]) / 2  # reading and writing
        return dataclasses.replace(
            self.context.limits,
            max_seconds=seconds,
            min_seconds=min(self.context.limits.min_seconds, seconds),
        )

    def _measured(self, length: int) -> Point:
        tokens = self.context.task.example(self.batch, length)["tokens"].to(self.context.device)
        writer = Writer(self.model, tokens, int(self.context.scenario["steps"]))
        memory = peak_of(writer.read, self.model, self.context.device)
        reading = measure(writer.read, self._limits(), self.context.device)
        writer.ready()
        held = nbytes(tensors_in(writer.state))
        writing = measure(writer.write, self._limits(), self.context.device, before=writer.ready)
        return {
            "at": length,
            "status": "ok",
            **_interval("prefill", reading),
            **_interval("step", writing),
            "valid": reading.valid and writing.valid,
            "state_bytes": held,
            "stated_bytes": self.model.state_bytes(self.batch, length + START, self.context.dtype),
            "peak_bytes": memory["peak_bytes"],
        }


def _interval(name: str, timing: Timing) -> Point:
    low, high = timing.interval_s
    return {
        f"{name}_s": timing.median_s,
        f"{name}_ci_low_s": low,
        f"{name}_ci_high_s": high,
        f"{name}_n": len(timing.samples_s),
    }
