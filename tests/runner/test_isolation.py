"""Each cell has a process of its own, started at once, while the runner sleeps."""

import os
import signal
import sys
import time
from collections import Counter
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from bench.cell import Cell
from bench.machine import gpus
from bench.machine.surroundings import check_gpu, occupied
from bench.process.launch import FORK_SERVER, FRESH, Launcher, on_hub
from bench.process.outcome import SERVER_DIED
from bench.process.preload import preloads
from tests.runner.conftest import ROOT, Command, python, records

ONE = ("model=fake", "scenario=prefill", "suite.baselines=false")
WORKER = "tests.runner.fakes:run_cell"


def processes(results: Path) -> list[tuple[str, str, int]]:
    """Isolation, memory layout and parent of each record's process."""
    made = records(results)
    return [
        (r["environment"]["isolation"], r["environment"]["layout"], r["seen"]["parent"])
        for r in made
    ]


def test_cells_of_a_fork_server_share_its_layout(bench: Command, results: Path) -> None:
    assert bench(*ONE, "seed=0,1").code == 0
    first, second = processes(results)
    assert first == second
    assert first[0] == FORK_SERVER
    for record in records(results):
        assert record["seen"]["frozen"] > 1000, "the collector goes through what was imported"


def test_fresh_interpreters_share_nothing(bench: Command, results: Path) -> None:
    assert bench(*ONE, "seed=0,1", "isolation=fresh").code == 0
    first, second = processes(results)
    assert first[0] == second[0] == FRESH
    assert first[1] != second[1], "each layout is its own"
    assert first[2] == second[2], "both are children of the runner itself"


def test_repeats_are_records_in_rounds_and_are_counted(bench_here: Command, results: Path) -> None:
    done = bench_here(*ONE, "seed=0,1", "repeats=3")
    assert done.code == 0, done.err
    by_time = sorted(records(results), key=lambda record: record["created"])
    assert [r["cell"]["seed"] for r in by_time] == [0, 1] * 3, "all cells once, then again"
    assert set(Counter(r["key"] for r in by_time).values()) == {3}
    assert "2 of 2 cells are finished already" in bench_here(*ONE, "seed=0,1", "repeats=3").out
    assert bench_here(*ONE, "seed=0,1", "repeats=4").code == 0
    assert len(records(results)) == 8, "only what is lacking is run"
    assert bench_here(*ONE, "repeats=2", "force=true").code == 0
    assert len(records(results)) == 10


@pytest.mark.parametrize(
    ("word", "allowed"),
    [
        ("isolation=thread", "fresh, server"),
        ("busy_gpu=kill", "record, refuse"),
        ("repeats=0", "integers from 1"),
        ("repeats=99999999999999999999", "from 1 to 10000"),
        ("repeats=two", "repeats=two"),
        ("energy=much", "energy=much"),
    ],
)
def test_a_value_that_cannot_be_is_refused(
    bench_here: Command, results: Path, word: str, allowed: str
) -> None:
    done = bench_here(*ONE, word)
    assert done.code == 2
    assert word.partition("=")[0] in done.err
    assert allowed in done.err
    assert not results.exists()


def run(launcher: Launcher, workdir: Path, behaviour: str) -> Any:
    cell = {
        "config": {"model": {"behaviour": behaviour}, "device": {"name": "cpu"}},
        "seed": 0, "scenario": "train",
        "energy": False,
    }  # fmt: skip
    return launcher.run(cell, workdir, timeout=60, memory_limit_gib=None)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork server")
def test_the_runner_sleeps_while_a_cell_runs(tmp_path: Path) -> None:
    with Launcher(preload=[], threads=1, worker=WORKER) as launcher:
        launcher.ready(60)
        before, began = time.process_time(), time.monotonic()
        outcome = run(launcher, tmp_path, "pause")  # 0.6 s
        used, seconds = time.process_time() - before, time.monotonic() - began
    assert outcome.status == "ok"
    assert seconds > 0.6
    assert used < 0.05 * seconds
    assert outcome.parent_cpu_s == pytest.approx(used, abs=0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork server")
def test_a_server_that_dies_at_a_start_is_replaced_by_one_like_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Launcher(preload=[], threads=3, worker=WORKER) as launcher:
        serve, server = launcher._serve, forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]

        def die_after() -> None:
            serve()
            os.kill(server, signal.SIGKILL)
            os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
            monkeypatch.setattr(launcher, "_serve", serve)

        monkeypatch.setattr(launcher, "_serve", die_after)
        outcome = run(launcher, tmp_path, "good")
        assert outcome.payload["seen"]["parent"] != server
        assert outcome.payload["figures"]["threads"] == "3"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork server")
def test_the_servers_imports_are_no_part_of_a_cells_start(tmp_path: Path) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(1.5)\n")
    code = (
        "import sys, pathlib; from bench.process.launch import Launcher\n"
        "cell = {'config': {'device': {'name': 'cpu'}},\n"
        "        'seed': 0, 'scenario': 'train', 'energy': False}\n"
        f"if __name__ == '__main__':\n"
        f"    with Launcher(preload=['slow_to_import'], threads=1, worker={WORKER!r}) as server:\n"
        f"        done = server.run(cell, pathlib.Path({str(tmp_path)!r}), timeout=60,"
        " memory_limit_gib=None)\n"
        "    print(done.server_s, done.start_s, done.wall_s)\n"
    )
    done = python("-c", code, PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert done.code == 0, done.err
    server, start, wall = map(float, done.out.split())
    assert server > 1.5
    assert 0 < start <= wall < 1.5


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork server")
def test_a_new_servers_imports_are_no_part_of_the_next_cell(tmp_path: Path) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(1.0)\n")
    code = (
        "import pathlib; from bench.process.launch import Launcher\n"
        "def run(launcher, behaviour):\n"
        "    config = {'device': {'name': 'cpu'}, 'model': {'behaviour': behaviour}}\n"
        "    cell = {'config': config, 'seed': 0, 'scenario': 'train', 'energy': False}\n"
        f"    return launcher.run(cell, pathlib.Path({str(tmp_path)!r}), timeout=60,"
        " memory_limit_gib=None)\n"
        f"if __name__ == '__main__':\n"
        f"    with Launcher(preload=['slow_to_import'], threads=1, worker={WORKER!r}) as server:\n"
        "        first, second = run(server, 'orphan'), run(server, 'good')\n"
        "    print(first.reason, second.status, second.server_s, second.start_s, second.wall_s,"
        " sep='\\n')\n"
    )
    done = python("-c", code, PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert done.code == 0, done.err
    reason, status, *times = done.out.splitlines()
    assert (reason, status) == (SERVER_DIED, "ok")
    server, start, wall = map(float, times)
    assert server > 1.0
    assert 0 < start <= wall < 1.0


def test_a_record_tells_of_the_process_and_the_machine(bench: Command, results: Path) -> None:
    assert bench(*ONE).code == 0
    (record,) = records(results)
    found = record["environment"]
    assert 0 < found["start_s"] < record["wall_s"]
    assert 0 < found["parent_cpu_s"] < record["wall_s"]
    assert found["server_s"] > 0
    assert isinstance(found["busy"], list)
    assert isinstance(found["busy_before"], list)
    assert {"throttled", "gpu_processes", "cpu_quota", "governor", "variables"} <= set(found)
    if sys.platform == "linux":
        assert found["kernel"]
        assert 0 <= found["steal"] <= 1


def test_a_failed_cell_tells_it_too(bench: Command, results: Path) -> None:
    assert bench(*ONE, "model.behaviour=raise").code == 1
    (record,) = records(results)
    assert record["environment"]["start_s"] > 0
    assert "steal" in record["environment"]


def test_who_computes_on_the_gpu_is_refused_or_said(monkeypatch: pytest.MonkeyPatch) -> None:
    user = {"pid": 12, "name": "python3", "mib": 300}
    assert occupied([]) is None
    assert occupied(None) is None
    assert occupied([user]) == (
        "busy GPU: python3 (pid 12, 300 MiB) computes on it; end it, or allow it with "
        "busy_gpu=record"
    )
    monkeypatch.setattr(gpus, "processes", lambda: None)
    check_gpu("record", ["cuda"])
    check_gpu("refuse", ["cpu"])  # a cell on the CPU does not mind
    with pytest.raises(
        ValueError, match=r"busy_gpu=refuse needs to know.*allowed: busy_gpu=record"
    ):
        check_gpu("refuse", ["cuda"])


def test_joules_are_asked_for_where_a_call_is_repeated(bench_here: Command, results: Path) -> None:
    assert bench_here("model=fake").code == 0
    done = bench_here("model=fake", "energy=true")
    assert done.code == 0, done.err
    asked = Counter(
        (r["cell"]["scenario"], r.get("seen", {}).get("energy")) for r in records(results)
    )
    # Cells were run again for them, the baselines were not.
    again = {(scenario, asks): 1 for scenario in ("prefill", "train") for asks in (False, True)}
    assert asked == {**again, ("baselines", None): 1}


def test_the_server_imports_what_cells_of_the_project_would() -> None:
    target = {"_target_": "models.objectives.autoregressive.LanguageModel"}
    own = Cell(
        {"scenario": "decode"}, {"model": {**target, "x": [{"_target_": "mypkg.Mine"}]}},
        ("torch", "numba"), 0.0, {},
    )  # fmt: skip
    wanted = ["torch", "numba", "models.objectives.autoregressive", "bench.scenarios.decode"]
    assert preloads([own, own]) == wanted
    assert preloads([own], energy=True) == [*wanted, "zeus.monitor"]
    none = Cell({"scenario": "decode"}, own.config, ("torch",), 0.0, {}, unsupported="no")
    assert preloads([none]) == []


@pytest.mark.parametrize(
    ("group", "values", "there"),
    [
        ("task", {}, False),
        ("task", {"hub": "some/set"}, True),
        ("model", {"pretrained": None}, False),
        ("model", {"pretrained": "some/model"}, True),
        ("model", {"pretrained": str(ROOT)}, False),
        ("scenario", {"own_tasks": True}, True),
        ("scenario", {"own_tasks": False}, False),
    ],
)
def test_what_is_looked_up_on_the_hub(group: str, values: dict[str, Any], there: bool) -> None:
    assert on_hub({"task": {}, "model": None, "scenario": {}, group: values}) is there
