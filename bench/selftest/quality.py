"""The same treatment for scores: seeds with nothing changed but rounding, and with less training.

Training repeats itself to the last digit where nothing changed, so an A/A of scores would be empty.
The plain change here is one of rounding alone: the same training on one thread instead of all.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.ab.sample import TIMEOUT_S, Side, take_pair
from bench.errors import BadInput
from bench.report.compare.scores import judge_paired

LESS = 0.8  # share of the training items that is left in the worse variant
SEEDS = 5  # a side in one comparison


@dataclass(frozen=True)
class Scores:
    """Scores by seed of the three variants; `better` is higher or lower.

    `repeated` counts the seeds whose plain run, done twice, gave the same score to the last digit.
    """

    plain: dict[int, float]
    rounding: dict[int, float]
    less: dict[int, float]
    better: str
    repeated: int
    seconds: float


def collect(
    root: Path, request: Mapping[str, Any], seeds: int, say: Callable[[str], None]
) -> Scores:
    """Train and score every seed: plain against each of the two variants."""
    begin = time.monotonic()
    found: dict[str, dict[int, float]] = {"plain": {}, "rounding": {}, "less": {}}
    better, repeated = "lower", 0
    for seed in range(seeds):
        plain = _with(request, seed)
        variants = {
            "rounding": _with(request, seed, threads=1),
            "less": _with(request, seed, share=LESS),
        }
        twice = []
        for name, other in variants.items():
            sides = Side("plain", root), Side(name, root)
            samples = take_pair(sides, (plain, other), timeout=TIMEOUT_S)
            for side, sample in zip(sides, samples, strict=True):
                if not sample.ok:
                    raise BadInput(f"quality, {side.name}: {sample.payload.get('reason')}")
                score = sample.payload["quality"]
                found[side.name][seed], better = float(score["value"]), str(score["better"])
            twice.append(found["plain"][seed])
        repeated += twice[0] == twice[1]
        say(f"seed {seed + 1} of {seeds}: {time.monotonic() - begin:.0f} s")
    seconds = time.monotonic() - begin
    return Scores(found["plain"], found["rounding"], found["less"], better, repeated, seconds)


def _with(
    request: Mapping[str, Any], seed: int, *, threads: int | None = None, share: float = 1.0
) -> dict[str, Any]:
    """The request at another seed, thread count or share of its training items."""
    config = dict(request["config"])
    items = {name: max(round(n * share), 1) for name, n in config["suite"]["items"].items()}
    config["suite"] = {**config["suite"], "items": items}
    count = threads or int(request["threads"])
    return {**request, "seed": seed, "threads": count,
            "config": {**config, "seed": seed, "threads": count}}  # fmt: skip


def rehearse(scores: Scores, other: Mapping[int, float], comparisons: int, seed: int) -> float:
    """Share of comparisons, each of `SEEDS` drawn seeds, that call a difference."""
    draw = np.random.default_rng(seed)
    seeds = sorted(scores.plain)
    called = 0
    for _ in range(comparisons):
        chosen = draw.choice(seeds, size=min(SEEDS, len(seeds)), replace=False)
        base = {int(s): scores.plain[int(s)] for s in chosen}
        head = {int(s): other[int(s)] for s in chosen}
        verdict = judge_paired(base, head, better=scores.better).verdict
        called += verdict in ("better", "worse")
    return called / comparisons
