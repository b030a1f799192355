"""A pool of fresh-process samples of one step, plain and slowed down, taken in turns."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.ab.duel import timed_in
from bench.ab.sample import Side, take
from bench.errors import BadInput

# One round: twice plain, once each slowdown, mirrored every other round, so that drift is shared.
ORDER = (0.0, 0.05, 0.10, 0.0)


@dataclass(frozen=True)
class Process:
    """Samples in seconds of one process; `slowdown` is the share that was injected."""

    slowdown: float
    round: int
    started_s: float
    wall_s: float
    samples: list[float]


@dataclass(frozen=True)
class Pool:
    """Processes of each metric in the order in which they ran."""

    processes: dict[str, list[Process]]
    about: dict[str, Any]

    def of(self, metric: str, slowdown: float) -> list[list[Process]]:
        """Processes of one kind by round."""
        rounds: dict[int, list[Process]] = {}
        for process in self.processes[metric]:
            if process.slowdown == slowdown:
                rounds.setdefault(process.round, []).append(process)
        return [rounds[number] for number in sorted(rounds)]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "Pool":
        """A saved pool; BadInput where the file holds none."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            processes = {
                metric: [Process(**process) for process in found]
                for metric, found in raw["processes"].items()
            }
            return Pool(processes, raw["about"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadInput(f"--pool={path} holds no pool of samples ({error!r}).") from error


def collect(
    root: Path,
    requests: Mapping[str, Mapping[str, Any]],
    rounds: int,
    about: Mapping[str, Any],
    say: Callable[[str], None],
) -> Pool:
    """Measure each cell of `requests` in `rounds` rounds of four fresh processes.

    A process that fails ends it: BadInput with the reason, since there is nothing to test then.
    """
    begin = time.monotonic()
    processes: dict[str, list[Process]] = {}
    for number in range(-1, rounds):  # the first round warms caches up and is thrown away
        order = ORDER if number % 2 == 0 else ORDER[::-1]
        for cell, request in requests.items():
            for slowdown in order if number >= 0 else (0.0,):
                started = time.monotonic()
                sample = take(Side("selftest", root, slowdown=slowdown), request, timeout=600)
                if not sample.ok:
                    raise BadInput(f"{cell}: {sample.payload.get('reason')}")
                for metric, samples in timed_in(cell, sample.payload).items():
                    process = Process(slowdown, number, started - begin, sample.wall_s, samples)
                    if number >= 0:
                        processes.setdefault(metric, []).append(process)
        if number >= 0:
            say(f"round {number + 1} of {rounds}: {time.monotonic() - begin:.0f} s")
    return Pool(processes, {**about, "seconds": time.monotonic() - begin})
