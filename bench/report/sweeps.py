"""Context sweeps of records: the newest of each model, with its fit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.report.fits import ContextFit, Power, fit_context, fit_power
from bench.report.heading import context
from bench.report.labels import label
from bench.report.select import select
from bench.store.parts import PointPart
from bench.store.record import Record

SCENARIO = "context"


@dataclass(frozen=True)
class Sweep:
    """A row's sweep: its measured points, those without a result, and what is fitted to them."""

    label: str  # its name among the sweeps of its block
    record: Record
    points: Sequence[PointPart]
    missing: Sequence[PointPart]

    @cached_property
    def fit(self) -> ContextFit | None:
        """Time of reading."""
        return fit_context(self._lengths, [point["prefill_s"] for point in self.points])

    @cached_property
    def read(self) -> Power | None:
        """Time of reading, over the longer half of the lengths."""
        return fit_power(self._lengths, [point["prefill_s"] for point in self.points])

    @cached_property
    def written(self) -> Power | None:
        """Time of one more symbol."""
        return fit_power(self._lengths, [point["step_s"] for point in self.points])

    @cached_property
    def state(self) -> Power | None:
        """Bytes that a sequence carries along."""
        return fit_power(self._lengths, [point["state_bytes"] for point in self.points])

    @property
    def _lengths(self) -> list[int]:
        return [point["at"] for point in self.points]

    @property
    def model(self) -> str:
        return self.record["cell"]["model"]

    @property
    def family(self) -> str:
        return self.record["cell"]["family"]

    @property
    def state_grows(self) -> bool:
        """Whether the last octave added to the state."""
        return len(self.points) > 1 and (
            self.points[-1]["state_bytes"] > self.points[-2]["state_bytes"]
        )


@dataclass(frozen=True)
class SweepBlock:
    """Sweeps that may stand side by side, under one heading."""

    heading: str
    sweeps: Sequence[Sweep]


def sweep_blocks(records: Iterable[Record]) -> list[SweepBlock]:
    """A block for each task, suite, machine, device, dtype and thread count."""
    swept = [r for r in records if r["cell"]["scenario"] == SCENARIO and r.get("sweep")]
    found = []
    for selection in select(swept):
        rows = selection.current
        named = [(label(row, rows), row.records()[0]) for row in rows]
        good = [_sweep(name, record) for name, record in named if record["status"] == "ok"]
        if good:
            found.append(SweepBlock(f"{selection.key.task} · {context(selection)}", good))
    return found


def _sweep(name: str, record: Record) -> Sweep:
    points = record["sweep"].get("points") or []
    good = [point for point in points if point["status"] == "ok"]
    return Sweep(name, record, good, [point for point in points if point["status"] != "ok"])
