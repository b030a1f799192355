"""What else happened on the machine meanwhile: stolen time, other processes, throttling.

Two looks at the kernel's counters and what lies between them; nothing runs in between.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.machine import cgroup, gpus
from bench.machine.cgroup import read

BUSY = 0.1  # share of a core from which another process is worth a word
TICKS = 2  # of the kernel's clock that it must have used: a single one may be chance
WINDOW_S = 0.1  # looked at before a cell
SHOWN = 5  # processes in a record, the busiest first
STEAL = 7  # place of stolen time in the first line of /proc/stat, after user, nice, system, …
COUNTED = 8  # places that add up to all time; those behind are parts of user and nice
Processes = Mapping[tuple[int, float], tuple[str, float]]


@dataclass(frozen=True)
class Look:
    """Counters at one moment; None where the machine has none."""

    at: float
    stolen: tuple[int, int] | None  # ticks stolen, and ticks in all
    others: Processes  # name and processor seconds of processes that are not ours
    hot: int | None  # times that a core was throttled for its heat
    quota: tuple[int, float] | None  # times, and seconds, that a quota made our group wait
    gpu: Mapping[str, int] | None  # nanoseconds for which the GPU was held back, by the reason


def look(*, cuda: bool = False, root: Path = Path("/")) -> Look:
    """Read all counters; those of the GPU where a cell uses it."""
    return Look(
        at=time.monotonic(),
        stolen=_stolen(root),
        others=_others(),
        hot=_hot(root),
        quota=cgroup.throttled(root),
        gpu=gpus.held_back_ns() if cuda else None,
    )


def steal(first: Look, second: Look) -> float | None:
    """Share of the processors' time that the hypervisor gave to others."""
    if first.stolen is None or second.stolen is None:
        return None
    stolen, total = (b - a for a, b in zip(first.stolen, second.stolen, strict=True))
    return round(stolen / total, 4) if total > 0 else None


def busy(first: Look, second: Look) -> list[dict[str, Any]]:
    """Other processes by name with their share of a core (1: a whole one), the busiest first.

    One that ended before the second look is not seen.
    """
    seconds = max(second.at - first.at, 1e-9)
    least = max(BUSY * seconds, TICKS / _ticks_per_s())
    used = [
        (name, spent - first.others.get(key, ("", 0.0))[1])
        for key, (name, spent) in second.others.items()
    ]
    found = sorted((pair for pair in used if pair[1] >= least), key=lambda pair: -pair[1])
    return [{"name": name, "cores": round(spent / seconds, 2)} for name, spent in found[:SHOWN]]


def throttled(first: Look, second: Look) -> str | None:
    """One sentence on what held the machine back, None where no counter moved."""
    found = []
    if first.hot is not None and second.hot is not None and second.hot > first.hot:
        found.append(f"cores were slowed down for their heat {second.hot - first.hot} times")
    if first.quota and second.quota and second.quota[0] > first.quota[0]:
        times, waited = (b - a for a, b in zip(first.quota, second.quota, strict=True))
        found.append(f"a processor quota made the group wait {times:.0f} times, {waited:.2f} s")
    for words, begin in (first.gpu or {}).items():
        if (waited := (second.gpu or {}).get(words, begin) - begin) > 0:
            found.append(f"the GPU was held back by {words} for {waited / 1e9:.2f} s")
    return "; ".join(found) or None


def _stolen(root: Path) -> tuple[int, int] | None:
    first = (read(root / "proc/stat") or "").partition("\n")[0].split()
    if len(first) <= STEAL + 1 or first[0] != "cpu":
        return None
    ticks = [int(word) for word in first[1:]]
    return ticks[STEAL], sum(ticks[:COUNTED])


def _hot(root: Path) -> int | None:
    """Counts of all cores; a package's count stands at each of its cores, so it is left out."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    found = [int(text) for text in map(read, files) if text]
    return sum(found) if found else None


def _others() -> Processes:
    """Processes but this one and its descendants, by what names one uniquely."""
    found, parents = {}, {}
    for process in psutil.process_iter(["pid", "ppid", "name", "cpu_times", "create_time"]):
        info = process.info
        parents[info["pid"]] = info["ppid"]
        if (times := info["cpu_times"]) is not None:  # None where we may not look
            key = (info["pid"], info["create_time"])
            found[key] = (info["name"] or "unknown", times.user + times.system)
    ours = os.getpid()
    return {key: value for key, value in found.items() if not _descends(key[0], ours, parents)}


def _descends(pid: int, ancestor: int, parents: Mapping[int, int | None]) -> bool:
    seen: set[int] = set()
    current: int | None = pid
    while current and current not in seen:
        if current == ancestor:
            return True
        seen.add(current)
        current = parents.get(current)
    return False


def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
