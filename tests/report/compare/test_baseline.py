"""Accepting a baseline."""

from pathlib import Path

import pytest

from bench.report.__main__ import main
from bench.store import Store
from tests.factories import make_record
from tests.report.compare.records import steps


def fill(folder: Path, records: list) -> Path:
    for record in records:
        Store(folder).write(record, {"items.npy": b"x"})
    return folder


def test_accepting_a_baseline_ends_the_alarm(tmp_path: Path) -> None:
    base = fill(tmp_path / "baseline", steps(10))
    head = fill(tmp_path / "head", steps(10, 0.03, draw=1))
    assert main(["compare", str(base), str(head)]) == 10
    assert main(["baseline", "update", str(head), "--to", str(base)]) == 0
    assert main(["compare", str(base), str(head)]) == 0
    before, _ = Store(tmp_path / "baseline.previous").read_all()
    assert len(before) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "baseline", "baseline.previous", "head",
    ]  # fmt: skip


def test_only_what_ran_and_is_newest_is_taken(tmp_path: Path) -> None:
    old = steps(3, created="2026-11-01T00:00:00+00:00", source="old")
    failed = [make_record(status="failed", reason="NaN", model="mamba")]
    head = fill(tmp_path / "head", [*old, *steps(2), *failed])
    (head / "noise.json").write_text("{}")
    assert main(["baseline", "update", str(head), "--to", str(tmp_path / "b")]) == 0
    kept, problems = Store(tmp_path / "b").read_all()
    assert (len(kept), problems) == (2, [])
    assert Store(tmp_path / "b").verify() == []
    assert (tmp_path / "b" / "noise.json").exists()


def test_nothing_to_accept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = fill(tmp_path / "head", [make_record(status="failed", reason="NaN")])
    assert main(["baseline", "update", str(head), "--to", str(tmp_path / "b")]) == 2
    assert "has no cell that ran to its end" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
