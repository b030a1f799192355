"""The search for what fits: by enumeration, and in real processes of a model of known bytes."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import bench.frontier
from bench.cell import Cell
from bench.constants import GIB
from bench.errors import OUT_OF_MEMORY
from bench.frontier import Ask, Bound, Search, bound
from bench.process.outcome import TIME_OUT, Outcome
from tests.runner.conftest import Command, records
from tests.runner.items import BROKEN_AT, ITEM

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
MEMORY = f"{OUT_OF_MEMORY}RuntimeError: can't allocate memory"
WORDS = ("model=fake", "scenario=frontier", "suite.baselines=false")
# Known bytes: the limit leaves room for a dozen items beside the interpreter.
LIMIT = "memory_limit_gib=0.25"


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "axis": "batch", "mode": "train", "start": 1, "factor": 2, "resolution": 0.0, "max": 1000,
        "batch_size": 1, "context": None, "point_seconds": 10.0, "max_seconds": 100.0,
        "memory_limit_gib": 1.0, **changes,
    }  # fmt: skip


def fits_up_to(frontier: int) -> Ask:
    def ask(scenario: Mapping[str, Any], seconds: float) -> Outcome:
        value = scenario["at"]
        if value > frontier:
            return Outcome("failed", MEMORY)
        return Outcome("ok", payload={"point": {"peak_bytes": 10 * value}})

    return ask


@pytest.mark.parametrize("start", [1, 7, 40])
@pytest.mark.parametrize("factor", [1.01, 1.5, 2, 10])
@pytest.mark.parametrize("resolution", [0.0, 0.05, 0.5])
def test_every_frontier_is_found(start: int, factor: float, resolution: float) -> None:
    for frontier in range(1, 100):
        scenario = settings(start=start, factor=factor, resolution=resolution, max=90)
        sweep = Search(scenario, fits_up_to(frontier), None, 100.0).run().payload["sweep"]
        low, high = sweep["largest"], sweep["smallest_failed"]
        if frontier >= 90:
            assert (low, high, sweep["limited_by"]) == (90, None, "max")
        else:
            assert low <= frontier < high
            assert high - low <= max(1, resolution * low)
            assert sweep["limited_by"] == "memory"
        values = [point["at"] for point in sweep["points"]]
        assert values == sorted(set(values))
        for point in sweep["points"]:
            assert (point["status"] == "ok") == (point["at"] <= low)
            assert point["status"] != "skipped" or point["at"] > high


def test_nothing_fits() -> None:
    done = Search(settings(start=4), fits_up_to(0), None, 100.0).run()
    assert done.status == "failed"
    assert done.reason == f"batch 1: {MEMORY}"
    assert [p["at"] for p in done.payload["sweep"]["points"] if p["status"] == "failed"] == [
        1,
        2,
        4,
    ]


@pytest.mark.parametrize("bound", [1, 2, 23, 24, 64])
def test_what_must_fail_is_not_tried(bound: int) -> None:
    asked = []

    def ask(scenario: Mapping[str, Any], seconds: float) -> Outcome:
        asked.append(scenario["at"])
        return fits_up_to(1000)(scenario, seconds)

    done = Search(settings(), ask, Bound(bound, "nano ran out of memory"), 100.0).run()
    sweep = done.payload["sweep"]
    assert all(value < bound for value in asked)
    assert (sweep["largest"] or 0) == bound - 1
    assert sweep["smallest_failed"] is None
    assert sweep["limited_by"] == "memory"
    assert done.status == ("ok" if bound > 1 else "failed")
    told = {p["reason"] for p in sweep["points"] if p["status"] == "skipped"}
    assert told == {"nano ran out of memory"}


def test_time_in_all_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(bench.frontier.time, "monotonic", lambda: now[0])

    def ask(scenario: Mapping[str, Any], seconds: float) -> Outcome:
        now[0] += min(4.0, seconds)
        if seconds < 4.0:
            return Outcome("failed", f"{TIME_OUT}not finished after {seconds:g} s")
        return Outcome("ok")

    cut = Search(settings(max_seconds=10.0), ask, None, 100.0).run()
    sweep = cut.payload["sweep"]
    assert [p["status"] for p in sweep["points"]] == ["ok", "ok", "skipped"]
    assert sweep["points"][-1]["reason"] == "max_seconds=10 was spent while it ran"
    assert (sweep["largest"], sweep["smallest_failed"]) == (2, None)
    assert sweep["limited_by"] == "max_seconds"
    assert not cut.payload["validity"]["valid"]
    now[0] = 0.0
    even = Search(settings(), ask, None, 8.0).run()  # the runner gives the cell less
    assert even.payload["sweep"]["points"][-1]["reason"] == "timeout=8 was spent"


@LINUX
def test_the_frontier_is_where_arithmetic_puts_it(bench_here: Command, results: Path) -> None:
    done = bench_here(*WORDS, LIMIT, "scenario.resolution=0")
    assert done.code == 0, done.err
    (record,) = records(results)
    sweep = record["sweep"]
    last = next(p for p in sweep["points"] if p["at"] == sweep["largest"])
    assert last["limit_bytes"] == GIB // 4
    room = (last["limit_bytes"] - last["start_bytes"]) / ITEM
    assert sweep["largest"] == pytest.approx(room, abs=1.5)
    assert sweep["largest"] > 8
    assert sweep["smallest_failed"] == sweep["largest"] + 1
    assert record["figures"] == {"largest_batch": sweep["largest"]}
    assert record["validity"] == {"valid": True, "reason": None}
    assert record["parameters"] == {"total": 7}
    assert record["environment"]["torch"] == {"threads": 1}, "as in other scenarios' records"
    assert record["environment"]["frequency_mhz"] == 2000.0
    first = next(p for p in sweep["points"] if p["status"] == "failed")
    assert first["reason"] == "out of memory: needed more than memory_limit_gib=0.25; MemoryError"
    assert f"batch up to {sweep['largest']}, limited by memory" in done.out
    assert "traceback.txt" not in {a["name"] for a in record["artefacts"]}


@LINUX
def test_a_larger_size_is_bounded_by_a_smaller_one(bench_here: Command, results: Path) -> None:
    done = bench_here(*WORDS, LIMIT, "size=tiny,nano")  # the smaller is to run first all the same
    assert done.code == 0, done.err
    made = records(results)
    by_size = {r["cell"]["size"]: r["sweep"] for r in made}
    failed = by_size["nano"]["smallest_failed"]
    assert by_size["tiny"]["largest"] <= by_size["nano"]["largest"] < failed
    tried = [p["at"] for p in by_size["tiny"]["points"] if p["status"] != "skipped"]
    assert max(tried) < failed
    told = {p["reason"] for p in by_size["tiny"]["points"] if p["status"] == "skipped"}
    assert told == {f"size nano ran out of memory at {failed}"}
    # The limit is part of what was asked.
    plan = bench_here(*WORDS, "size=nano", "plan=true", LIMIT)
    assert "0 cells to run" in plan.out
    assert (
        "1 cells to run" in bench_here(*WORDS, "size=nano", "plan=true", "memory_limit_gib=0.3").out
    )


def cell_and_record(**changes: Any) -> tuple[Cell, dict[str, Any]]:
    """A cell of 1.5 M parameters, and the record of a smaller size but for `changes`."""
    part = {"model": "m", "task": "t", "device": "cpu", "scenario": "frontier", "overrides": []}
    config = {"scenario": settings(), "task": {"name": "t"}, "optimizer": {}}
    large = {**config, "size": {"name": "tiny", "parameters": 1_500_000}}
    record = {
        "cell": part | changes.pop("cell", {}),
        "config": {**config, "size": {"name": "nano", "parameters": 250_000}, **changes},
        "sweep": {"points": [
            {"at": 4, "status": "ok", "reason": None},
            {"at": 5, "status": "failed", "reason": f"{TIME_OUT}not finished"},
            {"at": 9, "status": "failed", "reason": MEMORY},
            {"at": 16, "status": "failed", "reason": MEMORY},
        ]},
    }  # fmt: skip
    return Cell(part, large, (), 9.0, {}), record


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({}, 9),  # what took too long here may be quicker there
        ({"cell": {"model": "other"}}, None),
        ({"cell": {"dtype": "bfloat16"}}, None),
        ({"scenario": settings(memory_limit_gib=2.0)}, None),
        ({"scenario": settings(mode="decode")}, None),
        ({"size": {"name": "small", "parameters": 15_000_000}}, None),
        ({"size": {"name": "tiny", "parameters": 1_500_000}}, None),
    ],
)
def test_a_bound_is_of_the_same_question(changes: dict[str, Any], value: int | None) -> None:
    cell, record = cell_and_record(**changes)
    found = bound(cell, [record])
    assert (found.value if found else None) == value


def test_free_memory_bounds_no_other_run() -> None:
    cell, record = cell_and_record(scenario=settings(memory_limit_gib=None))
    cell.config["scenario"]["memory_limit_gib"] = None
    assert bound(cell, [record]) is None


@LINUX
def test_a_defect_is_not_taken_for_a_frontier(bench_here: Command, results: Path) -> None:
    done = bench_here(*WORDS, LIMIT, "model.behaviour=broken")
    assert done.code == 1
    (record,) = records(results)
    assert record["status"] == "failed"
    assert record["reason"] == f"batch {BROKEN_AT}: KeyError: 'weight'"
    sweep = record["sweep"]
    assert [(p["at"], p["status"]) for p in sweep["points"]] == [
        (1, "ok"), (2, "ok"), (4, "ok"), (8, "failed"),
    ]  # fmt: skip
    assert sweep["limited_by"] is None
    assert "traceback.txt" in {a["name"] for a in record["artefacts"]}


def test_a_library_that_aborts_for_want_of_memory_is_understood(
    bench_here: Command, results: Path
) -> None:
    done = bench_here(*WORDS, "model.behaviour=aborts", "scenario.max=64")
    assert done.code == 0, done.out
    (record,) = records(results)
    assert record["sweep"]["largest"] == BROKEN_AT - 1
    last = record["sweep"]["points"][-1]
    failed = next(p for p in record["sweep"]["points"] if p["status"] == "failed")
    assert failed["reason"] == (
        "out of memory: the process was ended by SIGABRT after it said 'bad_alloc'"
    )
    assert last["reason"] == f"{BROKEN_AT} ran out of memory"


def test_a_point_that_takes_too_long_does_not_fit(bench_here: Command, results: Path) -> None:
    done = bench_here(*WORDS, "model.behaviour=slow", "scenario.point_seconds=5", "scenario.max=64")
    assert done.code == 0, done.out
    (record,) = records(results)
    sweep = record["sweep"]
    assert (sweep["largest"], sweep["smallest_failed"]) == (BROKEN_AT - 1, BROKEN_AT)
    assert sweep["limited_by"] == "point_seconds"
    told = {p["reason"] for p in sweep["points"] if p["status"] == "skipped"}
    assert told == {"8 took longer than point_seconds=5"}


@LINUX
def test_a_limit_below_what_a_process_holds(bench_here: Command, results: Path) -> None:
    done = bench_here("model=fake", "memory_limit_gib=0.005")
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith("error: memory_limit_gib=0.005 is less than a cell's process holds")
    assert done.out.count("left out: the same bad input") == 2
    assert not records(results)
