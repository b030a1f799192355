"""How long a cell will take and how much memory it will need, from earlier runs on this machine."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.budgets import TIME
from bench.cell import Cell
from bench.constants import GIB
from bench.frontier import FRONTIER
from bench.machine.key import machine_key
from bench.process.limits import SHARE, free_bytes

# Where nothing was recorded: seconds by scenario at nano on two cores, and how they grow with size.
FIRST_GUESS_S = {"baselines": 8.0, "quality": 15.0, FRONTIER: 60.0}
OTHERWISE_S = 4.0
BASE_BYTES = 700 << 20
# Weights, gradients and two moments in float32, and as much again for activations.
BYTES_PER_PARAMETER = 2 * 16
TIMELESS = ("lr=", "optimizer.")  # overrides that change what is learnt, not how long it takes
SAME = (
    "model", "objective", "task", "scenario", "size", "match", "device", "dtype", "threads",
    "compile",
)  # fmt: skip


def predict(cells: Iterable[Cell], records: Sequence[Mapping[str, Any]]) -> None:
    """Set `predicted_s` and `predicted_bytes` of every cell."""
    history: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    here = machine_key()
    for record in records:
        if (record.get("environment") or {}).get("machine_key") != here:
            continue  # of a store that was merged
        if record["status"] == "ok" and record.get("wall_s") is not None:
            history.setdefault(_signature(record["cell"], record.get("config")), []).append(record)
    for cell in cells:
        if cell.unsupported:
            cell.predicted_s, cell.predicted_bytes = 0.0, 0
            continue
        seen = history.get(_signature(cell.part, cell.config), [])[-5:]
        peaks = [(record.get("memory") or {}).get("rss_peak_bytes") for record in seen]
        known = [peak for peak in peaks if peak is not None]
        cell.known = bool(seen)
        cell.predicted_s = (
            statistics.median(record["wall_s"] for record in seen) if seen else _guess_s(cell)
        )
        cell.predicted_bytes = max(known) if known else _guess_bytes(cell)
        if cell.part["scenario"] == FRONTIER:
            cell.predicted_bytes = _frontier_bytes(cell)


def _signature(part: Mapping[str, Any], config: Mapping[str, Any] | None) -> tuple[Any, ...]:
    """Cells that take about as long as one another."""
    suite = (config or {}).get("suite") or {}
    counts = suite.get("items") or {}
    items = counts.get(part.get("task"), counts.get(part.get("kind")))  # as a scenario reads them
    longest = (suite.get("measure") or {}).get("max_seconds")
    limit = ((config or {}).get("scenario") or {}).get("memory_limit_gib")
    given = sorted(o for o in part.get("overrides") or () if not o.startswith(TIMELESS))
    return (*(part.get(name) for name in SAME), *given, items, longest, limit)


def _parameters(cell: Cell) -> int:
    return int((cell.config.get("size") or {}).get("parameters") or 0)


def _guess_s(cell: Cell) -> float:
    guess = FIRST_GUESS_S.get(cell.part["scenario"], OTHERWISE_S)
    match, scenario = cell.config.get("match"), cell.config["scenario"]
    if match is not None and match["name"] == TIME and scenario["name"] in ("quality", "tune"):
        trials = len(scenario.get("grid") or [0]) * len(scenario.get("weight_decay") or [0])
        return guess + float(match["target"]) * trials
    return guess * max(_parameters(cell) / 250_000, 1.0) ** 0.8


def _guess_bytes(cell: Cell) -> int:
    return BASE_BYTES + BYTES_PER_PARAMETER * _parameters(cell)


def _frontier_bytes(cell: Cell) -> int:
    """A search takes by design what it may."""
    limit = cell.config["scenario"]["memory_limit_gib"]
    return int(SHARE * free_bytes() if limit is None else limit * GIB)


def fit_budget(cells: Sequence[Cell], seconds: float) -> tuple[list[Cell], list[Cell]]:
    """The cells that fit, taken in order, and those left out."""
    kept: list[Cell] = []
    out: list[Cell] = []
    for cell in cells:
        cost = cell.predicted_s or 0.0
        if cost <= seconds:
            kept.append(cell)
            seconds -= cost
        else:
            out.append(cell)
    return kept, out
