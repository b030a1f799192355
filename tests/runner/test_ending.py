"""A run that is killed, interrupted or not alone loses no record."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runner.conftest import ROOT, Command, arguments, environment, records


def start(results: Path, *words: str, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.runner.command", *arguments(results, *words)],
        cwd=ROOT,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_killing_the_parent_loses_no_record(bench: Command, results: Path, tmp_path: Path) -> None:
    words = ["model=fake", "model.behaviour=pause,slow", "scenario=prefill"]
    (tmp_path / "tmp").mkdir()
    parent = start(results, *words, TMPDIR=str(tmp_path / "tmp"))
    deadline = time.monotonic() + 60
    while not records(results) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # the slow cell is running now
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate(timeout=30)
    assert [r["status"] for r in records(results)] == ["ok"]
    left = time.monotonic() + 20
    while _group(parent.pid) and time.monotonic() < left:
        time.sleep(0.1)
    assert not _group(parent.pid), "the child has outlived its parent"
    assert not list((tmp_path / "tmp").glob("archbench-*")), "its unfinished files are left"
    # The same command again goes on where it was.
    done = bench(*words, "timeout=1")
    assert "1 of 2 cells are finished already" in done.out
    assert sorted(r["status"] for r in records(results)) == ["failed", "ok"]


def test_a_worker_that_is_killed_costs_its_own_cell(results: Path) -> None:
    parent = start(results, "model=fake", "model.behaviour=slow", "scenario=prefill", "seed=0,1")
    running, deadline = 0, time.monotonic() + 60
    # The first child only shows that the fork server answers, and is gone at once.
    while (seen := _child(parent.pid, 2)) != running or not seen:
        assert time.monotonic() < deadline, "no cell was started"
        running = seen
        time.sleep(0.5)
    os.kill(running, signal.SIGKILL)
    out, err = parent.communicate(timeout=60)
    assert parent.returncode == 1, err
    assert "Traceback" not in out + err
    made = {r["cell"]["seed"]: r for r in records(results)}
    assert {seed: r["status"] for seed, r in made.items()} == {0: "failed", 1: "ok"}
    assert "SIGKILL" in made[0]["reason"]


def test_two_runs_into_one_folder(bench: Command, results: Path) -> None:
    runs = [start(results, "model=fake", "seed=0,1,2") for _ in range(2)]
    for run in runs:
        out, err = run.communicate(timeout=100)
        assert run.returncode == 0, out + err
    made = records(results)
    assert len({r["key"] for r in made}) == 7
    assert {r["status"] for r in made} == {"ok"}
    assert "7 of 7 cells are finished already" in bench("model=fake", "seed=0,1,2").out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_the_records(results: Path, number: signal.Signals) -> None:
    parent = start(results, "model=fake", "model.behaviour=pause,slow", "scenario=prefill")
    deadline = time.monotonic() + 60
    while not records(results) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(parent.pid, number) if number == signal.SIGINT else os.kill(parent.pid, number)
    out, err = parent.communicate(timeout=30)
    assert parent.returncode == 130
    assert "every finished record is kept" in err
    assert "Traceback" not in out + err
    assert [r["status"] for r in records(results)] == ["ok"]


def _child(process: int, depth: int) -> int:
    """A descendant `depth` generations below: the fork server's children run cells; 0 if none."""
    if depth == 0:
        return process
    for path in Path(f"/proc/{process}/task/{process}").glob("children"):
        for child in path.read_text().split():
            if found := _child(int(child), depth - 1):
                return found
    return 0


def _group(leader: int) -> bool:
    """Whether a process of the group runs; one that ended but waits to be reaped does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if int(group) == leader and state not in "ZX":
            return True
    return False
