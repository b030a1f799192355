"""Made-up records of one cell in several processes and seeds."""

from typing import Any

import numpy as np

from bench.store.record import Record
from tests.factories import make_record, quality


def steps(count: int, mean: float = 0.02, *, draw: int = 0, **changes: Any) -> list[Record]:
    """A training step in `count` fresh interpreters; `changes` as of `make_record`."""
    random = np.random.default_rng(draw)
    found = []
    for number in range(count):
        level = mean * np.exp(random.normal(0, 0.005))
        samples = [float(level * np.exp(random.normal(0, 0.001))) for _ in range(9)]
        made = make_record(scenario="train", timing={"samples_s": samples}, **changes)
        made["environment"]["layout"] = f"{draw}-{number}"
        found.append(made)
    return found


def scores(values: dict[int, float]) -> list[Record]:
    """A score at several seeds."""
    return [
        make_record(scenario="quality", seed=seed, quality=quality(value=value))
        for seed, value in values.items()
    ]
