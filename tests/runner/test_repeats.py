"""A cell in several processes: planned and cut by the process, and no failure is lost."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.cell import Cell
from bench.conclude import counted
from bench.remaining import Remaining, remaining
from tests.factories import make_record
from tests.runner.conftest import ROOT, Command, arguments, environment, records
from tests.runner.fakes import LEDGER

ONE = ("model=fake", "scenario=prefill", "suite.baselines=false")


def cell(key: str, seconds: float = 4.0, unsupported: str | None = None) -> Cell:
    part = dict(make_record(model=key)["cell"])
    return Cell(part, {}, (), 0.0, {}, (), unsupported, key=key, predicted_s=seconds)


def keys(cells: Any) -> str:
    return "".join(cell.key for cell in cells)


def sort_out(*cells: Cell, **more: Any) -> Remaining:
    return remaining(cells, more.pop("records", []), **more)


def test_a_budget_cuts_processes_of_rounds() -> None:
    left = sort_out(cell("a"), cell("b", 7.0), repeats=3, budget=20.0)
    assert keys(left.todo) == "abaa"
    assert keys(left.left_out) == "bb"
    assert counted(left.left_out).startswith("(1 cells): b · text · ")
    assert counted(left.left_out).endswith(" (2 processes)")
    assert keys(sort_out(cell("a"), cell("b"), repeats=2).todo) == "abab"
    assert keys(sort_out(cell("a"), cell("b", 0.0, "cannot"), repeats=2).todo) == "aba"


def test_only_what_is_lacking_is_left() -> None:
    record = make_record()
    record["key"] = "a"
    more: dict[str, Any] = {"records": [record, record], "repeats": 3}
    assert keys(sort_out(cell("a"), **more).todo) == "a"
    assert not sort_out(cell("a"), **more).found
    more["repeats"] = 2
    assert list(sort_out(cell("a"), **more).found) == ["a"]
    assert not sort_out(cell("a"), **more).todo
    assert keys(sort_out(cell("a"), **more, force=True).todo) == "aa"


def test_the_plan_counts_processes(bench_here: Command) -> None:
    done = bench_here(*ONE, "repeats=3", "plan=true", "output=json")  # a prefill is guessed at 4 s
    assert done.code == 0, done.err
    assert "~   3 × 4.0 s" in done.err
    assert "1 cells to run in 3 processes, about 12 s;" in done.err
    assert done.document["seconds"] == 12.0
    assert [row["processes"] for row in done.document["plan"]] == [3]


def test_a_plan_within_a_budget_says_what_is_cut(bench_here: Command) -> None:
    done = bench_here(
        "model=fake", "repeats=3", "plan=true", "budget=12s"
    )  # 4, 4 and 8 s a process
    assert done.code == 0, done.err
    assert "to run; 2 processes more left out by budget" in done.out
    assert "3 × 8.0 s" in done.out
    assert done.out.splitlines()[-2].endswith(" GiB  left out by budget")
    assert "2 cells to run in 3 processes, about 12 s;" in done.out


def test_a_failure_among_repeats_counts(bench: Command, results: Path, tmp_path: Path) -> None:
    done = bench(
        *ONE, "repeats=3", "model.behaviour=second", "output=json",
        **{LEDGER: str(tmp_path / "ledger")},
    )  # fmt: skip
    made = sorted(records(results), key=lambda record: record["created"])
    assert [r["status"] for r in made] == ["ok", "failed", "ok"]
    assert done.code == done.document["exit_code"] == 1
    assert "1 of 3 processes failed:" in done.err
    assert "fake · fake · prefill · nano · seed 0 · model.behaviour=second: Runtime" in done.err
    assert "Each row shows the newest process of its cells" in done.err
    assert [r["status"] for r in done.document["records"]] == ["ok", "failed", "ok"]
    rows = [row for block in done.document["table"]["blocks"] for row in block["rows"]]
    assert len(rows) == 1


def test_equal_failures_are_one_line(bench_here: Command) -> None:
    done = bench_here(*ONE, "repeats=2", "model.behaviour=raise")
    assert done.code == 1
    assert "2 of 2 processes failed:" in done.out
    (line,) = [text for text in done.out.splitlines() if text.startswith("  fake")]
    assert line.endswith("broke over two lines (2 times)")


def test_what_a_worker_calls_unsupported_is_not_run_again(
    bench_here: Command, results: Path
) -> None:
    done = bench_here(*ONE, "repeats=3", "seed=0,1", "model.behaviour=never")
    assert done.code == 0, done.err
    made = Counter((r["cell"]["seed"], r["status"]) for r in records(results))
    assert made == {(0, "unsupported"): 1, (1, "ok"): 3}
    assert done.out.count("left out: unsupported") == 2


def test_the_document_holds_what_a_pipeline_reads(bench_here: Command, results: Path) -> None:
    assert bench_here(*ONE).code == 0
    (path,) = results.glob("records/*.json")
    record = json.loads(path.read_text())
    parts: dict[str, Any] = {
        "validity": {"valid": False, "reason": "median known to 7 %"},
        "energy": {"joules": 3.0},
        "latency": {"ttft_s": 0.1, "ttft_samples_s": [0.1, 0.1]},
        "sweep": {"axis": "batch", "largest": 8},
        "tuning": {"trials": [{"lr": 0.1, "value": 2.0}], "better": "lower"},
    }
    path.write_text(json.dumps(record | parts))
    (found,) = bench_here(*ONE, "output=json").document["records"]
    parts["latency"] = {"ttft_s": 0.1}
    assert {name: found[name] for name in parts} == parts


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_an_interrupt_counts_records_alone(results: Path) -> None:
    """Two cells end before it, one of them without a record."""
    sweep = "model.behaviour=good,refused,slow"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.runner.command", *arguments(results, *ONE, sweep)],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        for line in parent.stdout:
            if "bad input" in line:
                break
        os.kill(parent.pid, signal.SIGTERM)
        out = parent.stdout.read()  # communicate() would miss what the loop has read ahead
        parent.wait(timeout=30)
    assert parent.returncode == 130
    assert "records kept: 1" in out
    assert len(records(results)) == 1
