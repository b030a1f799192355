"""Pools with a noise and a slowdown that are known, for tests of the selftest."""

import numpy as np

from bench.selftest.pool import SLOWDOWNS, Pair, Pool

MACHINE = "one that was made up"


def pool(
    cv: float,
    *,
    count: int = 60,
    metrics: tuple[str, ...] = ("step",),
    drift: float = 0.0,
    inert: bool = False,
    seed: int = 0,
) -> Pool:
    """`count` pairs a kind; processes of a pair differ by `cv`, pairs by `drift` besides.

    `inert` leaves the slowed-down processes as fast as the plain ones.
    """
    draw = np.random.default_rng(seed)

    def process(level: float) -> list[float]:
        own = level * np.exp(draw.normal(0, cv))
        return [float(own * np.exp(draw.normal(0, cv / 10))) for _ in range(7)]

    pairs: dict[str, list[Pair]] = {metric: [] for metric in metrics}
    for found in pairs.values():
        for slowdown in SLOWDOWNS:
            for _ in range(count):
                level = 0.01 * np.exp(draw.normal(0, drift))
                slower = level * (1 if inert else 1 + slowdown)
                found.append(Pair(slowdown, process(level), process(slower), wall_s=2.0))
    return Pool(pairs, {"environment": {"cpu": "made up", "machine_key": MACHINE}})
