"""The noise of A/A comparisons on this machine, kept as the floor of later ones."""

import json
from pathlib import Path

import numpy as np

from bench.errors import BadInput
from bench.machine.key import machine_key
from bench.report.compare.statistics import LOOKS, ratio_interval
from bench.selftest.pool import Pool
from bench.selftest.rehearse import pairs
from bench.store.files import put

SHARE = 0.99  # of A/A comparisons whose ratio lies within the floor


def write_floors(pool: Pool, comparisons: int, seed: int, path: Path) -> None:
    """Merge the floors of this machine into the file, which keeps those of others."""
    known = kept(path)
    known.setdefault(machine_key(), {}).update(floors(pool, comparisons, seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, [json.dumps(known, indent=1).encode(), b"\n"])


def kept(path: Path) -> dict[str, dict[str, float]]:
    """Floors by machine and metric, none where there is no file; BadInput where it holds others."""
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError:
        known = None
    if not isinstance(known, dict) or not all(isinstance(found, dict) for found in known.values()):
        raise BadInput(
            f"--noise={path} holds no floors; allowed: a file of the selftest's, or none."
        )
    return known


def floors(pool: Pool, comparisons: int, seed: int) -> dict[str, float]:
    """By metric, the relative change that 1 in 100 A/A comparisons at the first look exceeds."""
    draw = np.random.default_rng(seed)
    found = {}
    for metric in pool.pairs:
        changes = []
        for _ in range(comparisons):
            drawn = list(pairs(pool, metric, 0.0, draw, LOOKS[0]))
            ratio, _, _ = ratio_interval(*map(list, zip(*drawn, strict=True)))
            changes.append(max(ratio, 1 / ratio) - 1)
        found[metric] = float(np.quantile(changes, SHARE))
    return found
