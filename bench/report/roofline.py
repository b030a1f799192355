"""Where a cell stands under the roof that this machine's own ceilings make.

Attainable is min(peak FLOP/s, intensity · bandwidth), equation 1 of Williams, Waterman and
Patterson (2009, "Roofline"). The bytes are those that all operators read and wrote, as if nothing
stayed in a cache; what does stay there can lift a cell above its roof.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.store.record import Record, created

SCENARIO = "ceilings"
Where = tuple[Any, ...]


@dataclass(frozen=True)
class Ceilings:
    """What a machine does at most in a dtype with so many threads."""

    flops_per_s: float
    bytes_per_s: float
    record: Record

    @property
    def ridge(self) -> float:
        """FLOPs a byte from which on arithmetic binds."""
        return self.flops_per_s / self.bytes_per_s


@dataclass(frozen=True)
class RooflinePoint:
    """A cell: FLOPs a byte, FLOP/s reached and attainable, and which ceiling binds."""

    record: Record
    intensity: float
    rate: float
    attainable: float
    binds: str  # "compute" or "memory"

    @property
    def share(self) -> float:
        return self.rate / self.attainable

    @property
    def valid(self) -> bool:
        """Whether the record stands by its time."""
        return (self.record.get("validity") or {}).get("valid") is not False


def where(record: Mapping[str, Any]) -> Where:
    """What a cell and its ceilings have in common."""
    cell, environment = record["cell"], record.get("environment") or {}
    return (environment.get("machine_key"), *(cell.get(n) for n in ("device", "dtype", "threads")))


def find_ceilings(records: Iterable[Record]) -> dict[Where, Ceilings]:
    """The newest ceilings of each machine, device, dtype and thread count."""
    found: dict[Where, Ceilings] = {}
    for record in sorted(records, key=created):
        figures = record.get("figures") or {}
        if record["cell"]["scenario"] == SCENARIO and record["status"] == "ok":
            found[where(record)] = Ceilings(
                float(figures["matmul_flops_per_s"]), float(figures["copy_bytes_per_s"]), record
            )
    return found


def place(record: Record, ceilings: Mapping[Where, Ceilings]) -> RooflinePoint | None:
    """The cell under its roof; None where its time, FLOPs, bytes or ceilings are not known."""
    roof = ceilings.get(where(record))
    cost, timing = record.get("cost") or {}, record.get("timing") or {}
    flops, moved, seconds = cost.get("flops"), cost.get("bytes_moved"), timing.get("median_s")
    if roof is None or not flops or not moved or not seconds:
        return None
    intensity = flops / moved
    attainable = min(roof.flops_per_s, intensity * roof.bytes_per_s)
    binds = "compute" if intensity >= roof.ridge else "memory"
    return RooflinePoint(record, intensity, flops / seconds, attainable, binds)
