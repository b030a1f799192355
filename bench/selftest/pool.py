"""A pool of pairs of fresh processes: plain against plain, and against slowed-down ones."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.ab.duel import timed_in
from bench.ab.sample import TIMEOUT_S, Side, take_pair
from bench.errors import BadInput

LONGEST_S = 1e6  # that a call, or a pair of processes, can have taken
LEAST = 2  # pairs of a kind, for noise to be seen at all
SLOWDOWNS = (0.0, 0.05, 0.10)  # of the second of a pair


@dataclass(frozen=True)
class Pair:
    """Samples in seconds of two processes that took turns; `slowdown` is that of the second."""

    slowdown: float
    plain: list[float]
    other: list[float]
    wall_s: float


@dataclass(frozen=True)
class Pool:
    """Pairs of each metric in the order in which they ran."""

    pairs: dict[str, list[Pair]]
    about: dict[str, Any]

    def of(self, metric: str, slowdown: float) -> list[Pair]:
        """The pairs of one kind."""
        return [pair for pair in self.pairs[metric] if pair.slowdown == slowdown]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "Pool":
        """A saved pool; BadInput where the file holds none."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            pairs = {
                metric: [Pair(**pair) for pair in found] for metric, found in raw["pairs"].items()
            }
            if not isinstance(raw["about"]["environment"], dict):
                raise ValueError("about.environment is no object")
            return Pool(_checked(pairs), raw["about"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadInput(f"--pool={path} holds no pool of samples ({error!r}).") from error


def _checked(pairs: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
    """The pairs; ValueError unless each metric has some of every kind, all of positive times."""
    if not pairs:
        raise ValueError("no metric")
    for metric, found in pairs.items():
        for slowdown in SLOWDOWNS:
            if sum(pair.slowdown == slowdown for pair in found) < LEAST:
                raise ValueError(f"{metric} has fewer than {LEAST} pairs of slowdown {slowdown}")
        for pair in found:
            for samples in (pair.plain, pair.other):
                if not samples or not all(0 < value < LONGEST_S for value in samples):
                    raise ValueError(f"{metric} has a process without samples above 0")
            if not 0 <= pair.wall_s < LONGEST_S:
                raise ValueError(f"{metric} has a pair of {pair.wall_s} seconds")
    return pairs


def collect(
    root: Path,
    requests: Mapping[str, Mapping[str, Any]],
    rounds: int,
    about: Mapping[str, Any],
    say: Callable[[str], None],
) -> Pool:
    """Measure a pair of each kind of each cell in `rounds` rounds.

    A process that fails ends it: BadInput with the reason, since there is nothing to test then.
    """
    begin = time.monotonic()
    pairs: dict[str, list[Pair]] = {}
    for number in range(-1, rounds):  # the first round warms caches up and is thrown away
        for cell, request in requests.items():
            for slowdown in SLOWDOWNS if number >= 0 else SLOWDOWNS[:1]:
                sides = Side("plain", root), Side("other", root, slowdown=slowdown)
                samples = take_pair(
                    sides, (request, request), timeout=TIMEOUT_S, second_leads=number % 2 == 1
                )
                for side, sample in zip(sides, samples, strict=True):
                    if not sample.ok:
                        raise BadInput(f"{cell}, {side.name}: {sample.payload.get('reason')}")
                if number < 0:
                    continue
                plain, other = (timed_in(cell, sample.payload) for sample in samples)
                wall = max(sample.wall_s for sample in samples)
                for metric in plain:
                    pair = Pair(slowdown, plain[metric], other[metric], wall)
                    pairs.setdefault(metric, []).append(pair)
        if number >= 0:
            say(f"round {number + 1} of {rounds}: {time.monotonic() - begin:.0f} s")
    return Pool(pairs, {**about, "seconds": time.monotonic() - begin})
