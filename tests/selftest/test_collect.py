"""How the pools of times and of scores are taken, with processes that answer at once."""

import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bench.ab.sample import Sample
from bench.errors import BadInput
from bench.selftest import pool as pools
from bench.selftest import quality
from bench.selftest.quality import Scores
from bench.selftest.slowdown import slow_down

ROOT = Path(__file__)
REQUEST: dict[str, Any] = {
    "seed": 0, "threads": 2,
    "config": {"seed": 0, "threads": 2, "suite": {"name": "s", "items": {"text": 10, "a": 1}}},
}  # fmt: skip


def quiet(_: str) -> None:
    pass


def test_a_pool_has_a_pair_of_each_kind_a_round_and_the_first_round_is_thrown_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[tuple[float, bool]] = []

    def pair(sides: Any, requests: Any, timeout: float, *, second_leads: bool) -> Any:
        taken.append((sides[1].slowdown, second_leads))
        assert sides[0].slowdown == 0.0
        made = [{"status": "ok", "timing": {"samples_s": [1.0 + s.slowdown] * 3}} for s in sides]
        return tuple(Sample(payload, 2.0 + place) for place, payload in enumerate(made))

    monkeypatch.setattr(pools, "take_pair", pair)
    found = pools.collect(ROOT, {"cell": REQUEST}, 2, {"who": "a test"}, quiet)
    kinds = [(0.0, False), (0.05, False), (0.10, False)]
    assert taken == [(0.0, True), *kinds, *((s, True) for s, _ in kinds)]
    ((metric, got),) = found.pairs.items()
    assert metric.startswith("cell · ")
    assert [pair.slowdown for pair in got] == [0.0, 0.05, 0.10] * 2
    assert [pair.other[0] for pair in got[:3]] == [1.0, 1.05, 1.10]
    assert {pair.wall_s for pair in got} == {3.0}, "the longer of the two"
    assert found.about["who"] == "a test"


def test_a_process_that_fails_ends_it_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Sample({"status": "failed", "reason": "crash: exit code 3"}, 1.0)
    monkeypatch.setattr(pools, "take_pair", lambda *_, **__: (bad, bad))
    with pytest.raises(BadInput, match="cell, plain: crash: exit code 3"):
        pools.collect(ROOT, {"cell": REQUEST}, 1, {}, quiet)
    monkeypatch.setattr(quality, "take_pair", lambda *_, **__: (bad, bad))
    with pytest.raises(BadInput, match="quality, plain: crash: exit code 3"):
        quality.collect(ROOT, REQUEST, 1, quiet)


def test_scores_are_of_one_thread_and_of_fewer_items(monkeypatch: pytest.MonkeyPatch) -> None:
    def pair(sides: Any, requests: Any, timeout: float) -> Any:
        def score(request: Any) -> float:
            config = request["config"]
            assert (config["seed"], config["threads"]) == (request["seed"], request["threads"])
            return (
                config["suite"]["items"]["text"] + request["seed"] / 10 + request["threads"] / 100
            )

        return tuple(
            Sample({"status": "ok", "quality": {"value": score(r), "better": "higher"}}, 1.0)
            for r in requests
        )

    monkeypatch.setattr(quality, "take_pair", pair)
    found = quality.collect(ROOT, REQUEST, 2, quiet)
    assert found.plain == pytest.approx({0: 10.02, 1: 10.12})
    assert found.rounding == pytest.approx({0: 10.01, 1: 10.11})
    assert found.less == pytest.approx({0: 8.02, 1: 8.12})
    assert (found.better, found.repeated) == ("higher", 2)
    assert REQUEST["config"]["suite"]["items"] == {"text": 10, "a": 1}, "the request is unchanged"


def scores(spread: float, shift: float, count: int = 200) -> Scores:
    draw = np.random.default_rng(0)
    plain = {seed: 2 + float(draw.normal(0, 0.05)) for seed in range(count)}
    rounding = {seed: value + float(draw.normal(0, spread)) for seed, value in plain.items()}
    less = {seed: value + shift for seed, value in rounding.items()}
    return Scores(plain, rounding, less, "lower", count, 0.0)


def test_scores_that_differ_by_chance_are_called_as_rarely_as_promised() -> None:
    found = scores(0.01, 0.1)
    assert quality.rehearse(found, found.rounding, 400, seed=0) <= 0.03  # 1 % promised
    assert quality.rehearse(found, found.plain, 50, seed=0) == 0.0


def test_scores_that_are_worse_at_every_seed_are_called() -> None:
    found = scores(0.01, 0.1)
    assert quality.rehearse(found, found.less, 100, seed=0) == 1.0


def test_a_slowdown_is_a_share_of_each_call() -> None:
    meter = ModuleType("meter")

    def clock(call: Any) -> float:
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    meter._cpu_clock = clock  # type: ignore[attr-defined]
    slow_down(meter, 0.5)
    inside: list[float] = []
    took = [meter._cpu_clock(lambda: inside.append(clock(lambda: time.sleep(0.004))))
            for _ in range(20)]  # fmt: skip
    ratios = sorted(whole / part for whole, part in zip(took, inside, strict=True))
    assert 1.5 <= ratios[0] < 1.6  # a busy machine adds to the others
