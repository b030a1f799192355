"""What is passed on of a record: parameters, metrics, its learning curve, paths of artefacts."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from bench.store import Record
from bench.store.record import created

SETTINGS = ("cell", "versions", "data", "code", "environment")
FIGURES = (
    "figures", "timing", "latency", "memory", "cost", "energy", "quality", "parameters", "validity",
)  # fmt: skip
TOP = ("status", "reason", "key", "config_hash")
# Texts that explain, and lists of items: neither a setting nor a figure.
LEFT_OUT = ("notes", "packages", "sizes")


@dataclass(frozen=True)
class Values:
    """One record as trackers take it; metrics by dotted names, the curve by items trained on."""

    id: str
    name: str
    status: str
    moment: float  # seconds since 1970, when the record was made
    seconds: float  # how long its cell took
    settings: dict[str, str | int | float | bool]
    metrics: dict[str, float]
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # items, seconds, loss
    artefacts: dict[str, str] = field(default_factory=dict)


def values_of(record: Record, artefacts: Path) -> Values:
    """What is passed on; `artefacts` is the folder of the store that has those of all records."""
    whole = cast(dict[str, Any], record)
    settings: dict[str, Any] = {name: whole[name] for name in TOP if whole.get(name) is not None}
    settings["created"] = record["created"]
    metrics: dict[str, float] = {}
    for part in SETTINGS:
        settings |= dict(_scalars(whole.get(part) or {}, f"{part}."))
    settings |= dict(_scalars((whole.get("config") or {}).get("optimizer") or {}, "optimizer."))
    for part in FIGURES:
        for name, value in _scalars(whole.get(part) or {}, f"{part}."):
            if isinstance(value, str | bool):
                settings[name] = value
            elif math.isfinite(value):
                metrics[name] = float(value)
    if isinstance(whole.get("wall_s"), int | float):
        metrics["wall_s"] = float(whole["wall_s"])
    cell = record["cell"]
    under = f"under {cell['objective']}" if cell.get("objective") else None
    what = (cell["model"], under, cell["task"], cell["scenario"])
    words = (*what, cell.get("size"), f"s{cell['seed']}")
    return Values(
        id=record["id"], name=" ".join(str(word) for word in words if word),
        status=record["status"], moment=created(record).timestamp(),
        seconds=metrics.get("wall_s", 0.0), settings=settings, metrics=metrics,
        curve=_curve(record), artefacts=_artefacts(record, artefacts),
    )  # fmt: skip


def _scalars(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, dict) and name not in LEFT_OUT:
            yield from _scalars(value, f"{prefix}{name}.")
        elif isinstance(value, str | int | float):
            yield prefix + name, value
        elif prefix == "cell." and isinstance(value, list) and value:  # overrides
            yield prefix + name, " ".join(map(str, value))


def _curve(record: Record) -> list[tuple[int, float, float]]:
    curve = record.get("curve") or {}
    points = zip(
        curve.get("items") or [], curve.get("seconds") or [], curve.get("loss") or [], strict=False
    )
    return [(int(items), seconds, loss) for items, seconds, loss in points if loss is not None]


def _artefacts(record: Record, folder: Path) -> dict[str, str]:
    """Paths of the artefacts that are there."""
    paths = {
        str(listed.get("name")): folder / record["id"] / str(listed.get("name"))
        for listed in record.get("artefacts") or []
    }
    return {name: str(path.resolve()) for name, path in paths.items() if path.is_file()}
