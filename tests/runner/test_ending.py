"""A run that is killed or interrupted loses no record (`test_faults.py` has more of it)."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A temporary folder whose name leaves room for that of a socket, as `tmp_path` may not."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder)


def test_killing_the_parent_loses_no_record(bench: Command, results: Path, short_tmp: Path) -> None:
    words = ["model=fake", "model.behaviour=pause,slow", "scenario=prefill"]
    parent = start(results, *words, TMPDIR=str(short_tmp))
    while not records(results):
        assert parent.poll() is None, "it ended before there was a record to be lost"
        time.sleep(0.05)
    time.sleep(0.5)  # the slow cell is running now
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate(timeout=30)
    assert [r["status"] for r in records(results)] == ["ok"]
    left = time.monotonic() + 20
    while _group(parent.pid) and time.monotonic() < left:
        time.sleep(0.1)
    assert not _group(parent.pid), "the child has outlived its parent"
    assert not list(short_tmp.glob("archbench-*")), "its unfinished files are left"
    # The same command again goes on where it was.
    done = bench(*words, "timeout=1")
    assert "1 of 2 cells are finished already" in done.out
    assert re.search(r"^records: .* \(1 made in \d+(\.\d)? s\)$", done.out, re.MULTILINE)
    assert sorted(r["status"] for r in records(results)) == ["failed", "ok"]


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
