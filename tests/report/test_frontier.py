"""The sheet of frontiers, from made-up records."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from bench.conclude import conclude
from bench.report.__main__ import main
from bench.report.commands.frontier import fit
from bench.store import Store
from tests.factories import make_record

MIB = 2**20


def found(model: str, each: float, fixed: int, largest: int, **changes: Any) -> Any:
    values = [2**k for k in range(10) if 2**k < largest] + [largest]
    points = [
        {"at": n, "status": "ok", "peak_bytes": int(fixed + each * n), "reason": None}
        for n in values
    ]
    points += [{"at": largest + 1, "status": "failed", "reason": "out of memory: MemoryError"}]
    sweep = {
        "axis": "batch", "mode": "train", "batch": None, "context": None, "memory_limit_gib": 2.0,
        "largest": largest, "smallest_failed": largest + 1, "limited_by": "memory",
        "method": "process RSS", "points": points, **changes,
    }  # fmt: skip
    return make_record(model=model, scenario="frontier", sweep=sweep)


def write(folder: Path, *made: Any) -> None:
    for record in made:
        Store(folder).write(record)


def test_one_row_a_model_with_the_slope(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        tmp_path,
        found("transformer", 6 * MIB, 500 * MIB, 150),
        found("mamba", 10 * MIB, 600 * MIB, 90, limited_by="point_seconds"),
    )
    assert main(["frontier", str(tmp_path), f"--csv={tmp_path}/out.csv"]) == 0
    out = capsys.readouterr().out
    assert "Largest batch of train" in out
    assert "memory_limit_gib=2" in out
    frame = pandas.read_csv(tmp_path / "out.csv").set_index("model")
    row = frame.loc["transformer"]
    assert (row["largest"], row["fails at"], row["limited by"]) == (150, 151, "memory")
    assert row["peak MiB"] == 500 + 6 * 150
    assert row["KiB each"] == pytest.approx(6 * 1024)
    assert row["fixed MiB"] == pytest.approx(500)
    assert frame.loc["mamba", "limited by"] == "time of a point"


def test_questions_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two limits are two sheets, and the newer does not make the older stale."""
    other = found("mamba", 3, 1, 70, memory_limit_gib=None, axis="context", batch=4, mode="decode")
    write(tmp_path, found("mamba", MIB, MIB, 50), found("mamba", MIB, MIB, 60, memory_limit_gib=1),
          other)  # fmt: skip
    assert main(["frontier", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in ("memory_limit_gib=2", "memory_limit_gib=1", "context of decode · batch 4",
                  "the memory that was free", " 50 ", " 60 ", " 70 "):  # fmt: skip
        assert words in out, out


def test_a_frontier_that_failed_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = found("mamba", 1, 1, 4, limited_by=None, points=[])
    broken["sweep"]["largest"] = None
    broken["status"], broken["reason"] = "failed", "batch 8: KeyError: 'weight'"
    write(tmp_path, broken)
    assert main(["frontier", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "mamba text frontier failed: batch 8: KeyError: 'weight'" in out


def test_the_interval_is_that_of_least_squares() -> None:
    """Against the normal equations, written out, and Student's 97.5 % point at 4 degrees: 2.776."""
    at = np.array([1, 2, 4, 8, 16, 32])
    noise = np.array([3.0, -2.0, 1.0, -4.0, 2.0, 0.0])
    peaks = 100 + 7 * at + noise
    line = fit([{"at": int(n), "peak_bytes": y} for n, y in zip(at, peaks, strict=True)])
    design = np.stack([np.ones(6), at], 1)
    inverse = np.linalg.inv(design.T @ design)
    fixed, slope = inverse @ design.T @ peaks
    residual = peaks - design @ [fixed, slope]
    assert line is not None
    assert (line.slope, line.fixed) == pytest.approx((slope, fixed))
    half = 2.7764451 * np.sqrt(residual @ residual / 4 * inverse[1, 1])
    assert line.half == pytest.approx(half)
    assert fit([{"at": 1, "peak_bytes": 1}, {"at": 2, "peak_bytes": 2}]) is None


def test_a_frontier_is_no_context_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its points have no times: the sheet of context sweeps passes it over."""
    write(tmp_path, found("mamba", 1, 1, 9, axis="context", batch=1))
    assert main(["context", str(tmp_path)]) == 2
    assert "suite=context" in capsys.readouterr().err
    write(tmp_path / "none", make_record())
    assert main(["frontier", str(tmp_path / "none")]) == 2
    assert "suite=frontier" in capsys.readouterr().err


def test_the_sheet_of_a_run_is_printed_by_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    record = found("mamba", MIB, MIB, 50)
    conclude([record], Store(tmp_path), sys.stdout, 0, as_json=True)
    out = capsys.readouterr().out
    assert "Largest batch of train" in out
    assert json.loads(out.splitlines()[-1])["records"][0]["cell"]["scenario"] == "frontier"
