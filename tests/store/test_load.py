"""`bench.load` gives records as a table."""

import subprocess
import sys
from pathlib import Path

import pytest

import bench
from bench.store import Store
from tests.factories import make_record, quality

ROOT = Path(__file__).resolve().parents[2]


def test_sections_become_columns(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(make_record(figures={"train_per_s": 1234.5}))
    store.write(make_record(scenario="quality", quality=quality(value=1.9)))
    frame = bench.load(tmp_path)
    assert len(frame) == 2
    assert frame["cell.model"].tolist() == ["transformer"] * 2
    assert frame["figures.train_per_s"].max() == 1234.5
    assert frame["quality.value"].min() == 1.9
    assert frame["environment.packages.torch"].iloc[0] == "2.14.1"
    assert frame["config"].iloc[0] == {"model": {"name": "transformer"}}
    assert str(frame["created"].dtype).startswith("datetime64")


def test_problems_are_warned_of(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(make_record())
    (store.records / "bad.json").write_text("{")
    with pytest.warns(UserWarning, match=r"bad\.json"):
        frame = bench.load(str(tmp_path))
    assert len(frame) == 1
    assert len(frame.attrs["problems"]) == 1


def test_loading_needs_no_torch(tmp_path: Path) -> None:
    Store(tmp_path).write(make_record())
    code = (
        "import sys, bench; assert 'pandas' not in sys.modules;"
        f"print(len(bench.load({str(tmp_path)!r}))); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"
