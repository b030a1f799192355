"""The search for the largest batch or context that fits, each value in a process of its own.

Values grow by `factor` until one fails, then the gap between the largest that fits and the least
that does not is halved until it is narrow enough. Memory grows with the value, so what lies beyond
one that ran out of memory must fail too and is skipped; so must a larger size of the same model.
Only memory and time set a frontier: any other failure is a defect, and ends the search.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cell import Cell
from bench.errors import OUT_OF_MEMORY
from bench.process.child import TRACEBACK
from bench.process.outcome import TIME_OUT, Outcome

FRONTIER = "frontier"
MEMORY, POINT, TOTAL, MOST = "memory", "point_seconds", "max_seconds", "max"
# What every point of a cell says alike, taken from the first that was measured.
COMMON = ("data", "parameters", "shape", "kernel", "environment")
ABOUT = (
    "model", "objective", "match", "task", "device", "dtype", "threads", "compile", "backend",
    "overrides",
)  # fmt: skip

Point = dict[str, Any]
Ask = Callable[[Mapping[str, Any], float], Outcome]  # the scenario of a point, its seconds


@dataclass(frozen=True)
class Bound:
    """A value that cannot fit, and why that is known before it was tried."""

    value: int
    reason: str


class Search:
    """One cell's search. `ask` measures a point; `seconds` are what the runner gives the cell."""

    def __init__(
        self, scenario: Mapping[str, Any], ask: Ask, bound: Bound | None, seconds: float
    ) -> None:
        self.scenario, self.ask = scenario, ask
        self.deadline = time.monotonic() + min(float(scenario["max_seconds"]), seconds)
        self.budget = f"max_seconds={scenario['max_seconds']:g}"
        if seconds < scenario["max_seconds"]:
            self.budget = f"timeout={seconds:g}"
        self.points: list[Point] = []
        self.common: dict[str, Any] = {}
        self.low = 0  # the largest that fitted
        self.high = bound.value if bound else None  # the least that does not fit
        self.why = bound.reason if bound else ""
        self.by = MEMORY if bound else MOST
        self.last: Outcome | None = None  # of a point
        self.fault: Outcome | None = None  # what ended the search, where it is none of the frontier

    def run(self) -> Outcome:
        """Try values until the frontier is known; a cell's outcome, its points within."""
        for value in itertools.chain(self._rising(), self._halving()):
            self._point(value)
            if self.fault or self.by == TOTAL:
                break
        if not self.fault:  # else the last is the one that broke
            self.points.sort(key=lambda point: point["at"])
        return self._outcome()

    def _rising(self) -> Iterator[int]:
        value, most = int(self.scenario["start"]), int(self.scenario["max"])
        while value < most:
            yield value
            value = max(int(value * self.scenario["factor"]), value + 1)
        yield most

    def _halving(self) -> Iterator[int]:
        share = float(self.scenario["resolution"])
        while self.high is not None and self.high - self.low > max(1, share * self.low):
            yield (self.low + self.high) // 2

    def _point(self, value: int) -> None:
        if self.high is not None and value >= self.high:
            self._keep(value, "skipped", self.why)
            return
        left = self.deadline - time.monotonic()
        if left <= 0:
            self._spent(value, f"{self.budget} was spent")
            return
        longest = float(self.scenario["point_seconds"])
        outcome = self.last = self.ask({**self.scenario, "at": value}, min(longest, left))
        reason = str(outcome.reason)
        if outcome.status == "ok":
            self._fitted(value, outcome)
        elif outcome.status == "failed" and reason.startswith(OUT_OF_MEMORY):
            self._failed(value, outcome, MEMORY, "ran out of memory")
        elif outcome.status == "failed" and reason.startswith(TIME_OUT):
            if left < longest:
                self._spent(value, f"{self.budget} was spent while it ran")
            else:
                self._failed(value, outcome, POINT, f"took longer than {POINT}={longest:g}")
        else:
            self.fault = outcome
            self._keep(value, "failed", reason, outcome)

    def _fitted(self, value: int, outcome: Outcome) -> None:
        self.low = value
        self.common = self.common or {k: v for k, v in outcome.payload.items() if k in COMMON}
        self._keep(value, "ok", None, outcome)

    def _failed(self, value: int, outcome: Outcome, by: str, what: str) -> None:
        self.high, self.by, self.why = value, by, f"{value} {what}"
        self._keep(value, "failed", outcome.reason, outcome)

    def _spent(self, value: int, reason: str) -> None:
        self.by = TOTAL
        self._keep(value, "skipped", reason)

    def _keep(
        self, value: int, status: str, reason: str | None, outcome: Outcome | None = None
    ) -> None:
        point: Point = {"at": value, "status": status, "reason": reason}
        if outcome is not None:
            point["wall_s"] = round(outcome.wall_s, 3)
            point["limit_bytes"] = outcome.limit_bytes
            point |= outcome.payload.get("point") or {}
        self.points.append(point)

    def _outcome(self) -> Outcome:
        if self.fault and self.fault.status != "failed":
            return self.fault  # the same for every value
        found = Outcome("ok", payload={**self.common, "sweep": self._sweep()})
        if self.last:
            found.isolation, found.layout = self.last.isolation, self.last.layout
        if self.fault or not self.low:
            told = self.points[-1] if self.fault else self.points[0]
            found.status = "failed"
            found.reason = f"{self.scenario['axis']} {told['at']}: {told['reason']}"
            return found
        narrow = self.by != TOTAL
        reason = None if narrow else f"{self.budget} was spent before the gap was narrow enough"
        found.payload["figures"] = {f"largest_{self.scenario['axis']}": self.low}
        found.payload["validity"] = {"valid": narrow, "reason": reason}
        return found

    def _sweep(self) -> dict[str, Any]:
        scenario, along = self.scenario, self.scenario["axis"]
        failed = [point["at"] for point in self.points if point["status"] == "failed"]
        methods = [method for point in self.points if (method := point.pop("method", None))]
        return {
            "axis": along,
            "mode": scenario["mode"],
            "batch": scenario["batch_size"] if along == "context" else None,
            "context": scenario["context"] if along == "batch" else None,
            "memory_limit_gib": scenario["memory_limit_gib"],
            "largest": self.low or None,
            "smallest_failed": min(failed, default=None),
            "limited_by": None if self.fault else self.by,
            "method": methods[0] if methods else None,
            "points": self.points,
        }


def search(
    cell: Cell,
    records: Iterable[Mapping[str, Any]],
    run: Callable[[Mapping[str, Any], float, float | None], Outcome],
    workdir: Path,
    seconds: float,
) -> Outcome:
    """Find the frontier of `cell` within `seconds`.

    `run` takes the configuration of a point, its seconds and GiB; `records` are those of the same
    source, packages and machine.
    """
    scenario = cell.config["scenario"]

    def ask(point: Mapping[str, Any], longest: float) -> Outcome:
        config = {**cell.config, "scenario": dict(point)}
        outcome = run(config, longest, scenario["memory_limit_gib"])
        if str(outcome.reason).startswith(OUT_OF_MEMORY):
            (workdir / TRACEBACK).unlink(missing_ok=True)  # it is a result, told in its point
        return outcome

    started = time.monotonic()
    outcome = Search(scenario, ask, bound(cell, records), seconds).run()
    outcome.wall_s = time.monotonic() - started
    return outcome


def bound(cell: Cell, records: Iterable[Mapping[str, Any]]) -> Bound | None:
    """The least value that ran out of memory at a smaller size of the same model.

    Under the same limit alone: how much memory is free differs from run to run.
    """
    if cell.config["scenario"]["memory_limit_gib"] is None:
        return None
    found = []
    for record in records:
        size = (record.get("config") or {}).get("size") or {}
        if size.get("parameters", 0) >= cell.config["size"]["parameters"]:
            continue
        if not _same_question(cell, record):
            continue
        for point in (record.get("sweep") or {}).get("points") or []:
            if point["status"] == "failed" and point["reason"].startswith(OUT_OF_MEMORY):
                reason = f"size {size['name']} ran out of memory at {point['at']}"
                found.append(Bound(point["at"], reason))
    return min(found, key=lambda bound: bound.value, default=None)


def _same_question(cell: Cell, record: Mapping[str, Any]) -> bool:
    if record["cell"]["scenario"] != FRONTIER:
        return False
    about = all(record["cell"].get(name) == cell.part.get(name) for name in ABOUT)
    parts = ("scenario", "task", "optimizer")
    return about and all(record["config"].get(p) == cell.config.get(p) for p in parts)
