"""The metrics of a record by the way in which they are compared."""

from collections.abc import Mapping
from typing import Any

CALL, FIRST_TOKEN = "time of a call", "time to first token"
SEPARATOR = " · "  # in the names of cells, and between a cell and its metric

# Figures that repeat themselves to the last digit where nothing changed.
EXACT = {
    "parameters": "parameters.total",
    "active parameters": "parameters.active",
    "parameter bytes": "memory.parameters_bytes",
    "gradient bytes": "memory.gradients_bytes",
    "optimizer bytes": "memory.optimizer_bytes",
    "state bytes": "figures.state_bytes",
    "state bytes held": "memory.state_bytes",
    "FLOPs": "cost.flops",
}


def of_cell(cell: str, metric: str) -> str:
    """What a metric of a cell is called where several cells are judged together."""
    return f"{cell}{SEPARATOR}{metric}"


def timed(record: Mapping[str, Any]) -> dict[str, list[float]]:
    """Raw samples in seconds of what was timed; less is better. A time of nothing is no sample."""
    found = {
        CALL: (record.get("timing") or {}).get("samples_s"),
        FIRST_TOKEN: (record.get("latency") or {}).get("ttft_samples_s"),
    }
    return {name: samples for name, samples in found.items() if samples and min(samples) > 0}


def exact(record: Mapping[str, Any]) -> dict[str, float]:
    """Figures without noise; the peak of tensors is one where each of them is followed."""
    found = {name: value_at(record, path) for name, path in EXACT.items()}
    memory = record.get("memory") or {}
    if memory.get("method") == "CPU allocator events":
        found["peak bytes of tensors"] = memory.get("peak_bytes")
    return {name: float(value) for name, value in found.items() if value is not None}


def score(record: Mapping[str, Any]) -> tuple[str, str, float] | None:
    """Name, better direction and value of the score, where the record has one."""
    quality = record.get("quality") or {}
    if quality.get("value") is None:
        return None
    return str(quality["metric"]), str(quality.get("better") or "lower"), float(quality["value"])


def value_at(record: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or None."""
    value: Any = record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
