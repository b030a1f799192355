"""Context sweeps of records: the newest of each model, with its fit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.report.fits import ContextFit, fit_context
from bench.report.heading import context
from bench.report.select import select
from bench.store.record import PointPart, Record

SCENARIO = "context"


@dataclass(frozen=True)
class Sweep:
    """One model's sweep: its measured points, those without a result, and the fit of reading."""

    record: Record
    points: Sequence[PointPart]
    missing: Sequence[PointPart]
    fit: ContextFit | None

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
        rows = [row.records()[0] for row in selection.current]
        good = [_sweep(record) for record in rows if record["status"] == "ok"]
        if good:
            found.append(SweepBlock(f"{selection.key.task} · {context(selection)}", good))
    return found


def _sweep(record: Record) -> Sweep:
    points = record["sweep"].get("points") or []
    good = [point for point in points if point["status"] == "ok"]
    fit = fit_context([p["at"] for p in good], [p["prefill_s"] for p in good])
    return Sweep(record, good, [point for point in points if point["status"] != "ok"], fit)
