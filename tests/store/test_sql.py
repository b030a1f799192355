"""SQL over the index against pandas over the records."""

import subprocess
import sys
from pathlib import Path

import pytest

import bench
from bench.store import Store, StoreError
from bench.store.sql import connect
from tests.factories import make_record, quality

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "published"


def test_groups_are_those_of_pandas() -> None:
    query = """
        select model, task, count(*) n, avg(quality) mean, max("parameters.total") most
        from records where status = 'ok' and scenario = 'quality' group by all order by model, task
    """
    ours = connect([PUBLISHED]).sql(query).df()
    frame = bench.load(PUBLISHED)
    frame = frame[(frame["status"] == "ok") & (frame["cell.scenario"] == "quality")]
    groups = frame.groupby(["cell.model", "cell.task"])
    theirs = groups.agg(
        n=("id", "count"), mean=("quality.value", "mean"), most=("parameters.total", "max")
    )
    assert len(ours) > 10
    assert list(zip(ours["model"], ours["task"], strict=True)) == list(theirs.index)
    for name in ("n", "mean", "most"):
        assert ours[name].tolist() == pytest.approx(theirs[name].tolist(), rel=1e-12)


def test_times_are_times() -> None:
    frame = bench.load(PUBLISHED)
    found = connect([str(PUBLISHED)]).sql("select epoch(min(created)) from records").fetchall()
    assert found[0][0] == pytest.approx(frame["created"].min().timestamp())


def test_several_stores_give_each_record_once(tmp_path: Path) -> None:
    shared = make_record()
    for name in ("a", "b"):
        Store(tmp_path / name).write(shared)
    Store(tmp_path / "b").write(make_record(scenario="quality", quality=quality()))
    count = "select count(*), count(distinct id) from records"
    assert connect([tmp_path]).sql(count).fetchall() == [(2, 2)]
    assert connect([tmp_path / "a"]).sql(count).fetchall() == [(1, 1)]
    with pytest.raises(StoreError, match="does not exist"):
        connect([tmp_path / "c"])


def test_without_duckdb_the_command_to_install_it_is_told() -> None:
    code = (
        "import sys; sys.modules['duckdb'] = None; from bench.cli import main;"
        "sys.exit(main(['records', 'sql', 'select 1', '--in', 'results/published']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'archbench[sql]'" in done.stderr
    assert done.stderr.count("\n") == 1
