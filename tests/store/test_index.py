"""The index says what the records say, whatever happens to it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyarrow
import pyarrow.parquet
import pytest

from bench.predict import _signature
from bench.report.table import build
from bench.store import Record, Store, read_paths, rows
from bench.store.brief import brief
from bench.store.frame import flatten
from bench.store.index import MARK, Index, mark
from bench.store.tables import read_table
from tests.factories import items_file, make_record, quality, timing

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "published"

WRITER = """
import sys
from bench.store import Store
from bench.store.index import Index
from tests.factories import make_record
store, tag = Store(sys.argv[1]), sys.argv[2]
for number in range(int(sys.argv[3])):
    record = make_record()
    record["id"] = f"{tag}-{number:05d}"
    store.write(record, {"items.npy": b"y" * 1000})
    Index(store.root).table()
    print(record["id"], flush=True)
"""


def writer(root: Path, tag: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), tag, str(count)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Four records, one with a score for each item."""
    made = Store(tmp_path / "results")
    for model in ("mamba", "moe", "rwkv"):
        figures = {"train_per_s": 10.0, "state_context": 64}
        made.write(make_record(model=model, figures=figures, timing=timing()))
    scored = make_record(scenario="quality", quality=quality())
    made.write(scored, {"items.npy": items_file([1.0, 2.0])})
    return made


def agrees(store: Store) -> None:
    """The index against the records, read one by one."""
    records, problems = Store(store.root).read_all()
    found, same = store.briefs()
    assert [r["id"] for r in found] == [r["id"] for r in records]
    assert sorted(map(str, same)) == sorted(map(str, problems))
    for short, record in zip(found, records, strict=True):
        for name in ("created", "status", "cell", "environment", "quality", "artefacts", "figures"):
            assert short.get(name) == record.get(name)
    assert Index(store.root).table()[0].num_rows == len(records)


def test_a_forecast_finds_in_a_brief_what_the_record_says() -> None:
    config = {
        "suite": {"items": {"text": 64}, "measure": {"max_seconds": 3.0}, "name": "quick"},
        "scenario": {"name": "frontier", "memory_limit_gib": 2.0},
    }
    record = make_record(scenario="frontier", config=config)
    short = brief(record)
    assert _signature(short["cell"], short["config"]) == _signature(record["cell"], config)
    assert set(short["config"]["suite"]) == {"items", "measure"}


def test_tables_are_the_same_from_briefs() -> None:
    records, _, roots = read_paths([PUBLISHED])
    found, problems, same = read_paths([PUBLISHED], brief=True)
    assert (problems, same) == ([], roots)
    assert len(found) == len(records) > 50
    assert build(found, same, everything=True) == build(records, roots, everything=True)


def test_columns_hold_what_the_records_hold() -> None:
    """Against the flattening of `bench.load`, which has code of its own."""
    table, _ = read_table([PUBLISHED])
    frame = flatten(read_paths([PUBLISHED])[0]).set_index("id")
    ours = table.to_pandas().set_index("id")
    compared = 0
    for name in set(ours.columns) & set(frame.columns) - {"cell.overrides"}:
        theirs = frame[name].reindex(ours.index)
        for one, other in zip(ours[name], theirs, strict=True):
            assert one == other or (
                (one != one or one is None) and (other != other or other is None)
            )
        compared += 1
    assert compared > 60
    assert set(ours.columns) - set(frame.columns) <= {"path", "created"}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_a_cut_index_is_made_again(store: Store, share: float) -> None:
    index = Index(store.root)
    whole, _ = index.table()
    content = index.path.read_bytes()
    index.path.write_bytes(content[: int(len(content) * share)])
    assert index.table()[0].equals(whole)
    assert pyarrow.parquet.read_table(index.path).num_rows == 4


def test_no_flipped_byte_reaches_a_reader(store: Store) -> None:
    index = Index(store.root)
    whole, _ = index.table()
    content = index.path.read_bytes()
    draw = random.Random(0)
    for _ in range(40):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        index.path.write_bytes(damaged)
        assert index.table()[0].select(whole.column_names).equals(whole)
        agrees(store)


def _text(path: Path, _: pyarrow.Table) -> None:
    path.write_text("not Parquet")


def _folder(path: Path, _: pyarrow.Table) -> None:
    path.unlink()
    path.mkdir()


def _gone(path: Path, _: pyarrow.Table) -> None:
    path.unlink()


def _unmarked(path: Path, _: pyarrow.Table) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"somebody": ["else"]}), path)


def _other_source(path: Path, table: pyarrow.Table) -> None:
    forged = table.set_column(
        table.column_names.index("brief"), "brief", pyarrow.array(["{}"] * table.num_rows)
    )
    pyarrow.parquet.write_table(forged.replace_schema_metadata({MARK: b"older"}), path)


def _without_brief(path: Path, table: pyarrow.Table) -> None:
    marked = table.drop_columns(["brief"]).replace_schema_metadata({MARK: mark()})
    pyarrow.parquet.write_table(marked, path)


def _of_other_type(path: Path, table: pyarrow.Table) -> None:
    place = table.column_names.index("bytes")
    texts = table.column("bytes").cast(pyarrow.string())
    marked = table.set_column(place, "bytes", texts).replace_schema_metadata({MARK: mark()})
    pyarrow.parquet.write_table(marked, path)


def _with_nulls(path: Path, table: pyarrow.Table) -> None:
    place = table.column_names.index("brief")
    empty = pyarrow.nulls(table.num_rows, pyarrow.string())
    marked = table.set_column(place, "brief", empty).replace_schema_metadata({MARK: mark()})
    pyarrow.parquet.write_table(marked, path)


@pytest.mark.parametrize(
    "damage",
    [_text, _folder, _gone, _unmarked, _other_source, _without_brief, _of_other_type, _with_nulls],
)
def test_a_foreign_index_is_not_believed(
    store: Store, damage: Callable[[Path, pyarrow.Table], None]
) -> None:
    index = Index(store.root)
    table, _ = index.table()
    damage(index.path, table)
    agrees(store)


def test_rows_of_an_index_count_for_their_own_files_only(store: Store, tmp_path: Path) -> None:
    Index(store.root).table()
    other = Store(tmp_path / "other")
    other.write(make_record(model="resnet"))
    os.replace(store.root / "index.parquet", other.root / "index.parquet")
    agrees(other)
    agrees(store)


def test_new_gone_and_changed_files(store: Store) -> None:
    agrees(store)
    store.write(make_record(model="unet", compile_notes=3))
    agrees(store)
    paths = sorted(store.records.glob("*.json"))
    paths[0].unlink()
    agrees(store)
    record = json.loads(paths[1].read_bytes())
    record["status"] = "failed"  # nobody should, but then it is told
    paths[1].write_text(json.dumps(record))
    agrees(store)
    size = paths[1].stat().st_size
    paths[1].write_text(json.dumps(record).replace('"failed"', '    "ok"'))
    os.utime(paths[1], ns=(1, paths[1].stat().st_mtime_ns + 1))
    assert paths[1].stat().st_size == size
    agrees(store)
    (store.records / "bad.json").write_text("{")
    (store.records / "folder.json").mkdir()
    (store.records / "lost.json").symlink_to("nowhere")
    for _ in range(2):  # what cannot be read is named every time
        assert len(store.briefs()[1]) == 3
        agrees(store)


def test_columns_of_several_types(tmp_path: Path) -> None:
    store = Store(tmp_path)
    values: list[Any] = [1, 2.5, None, True, "word", 2**70]
    for value in values[:2]:
        store.write(make_record(figures={"x": value}))
    table, _ = Index(tmp_path).table()
    assert table.column("figures.x").to_pylist() == [1.0, 2.5]
    for value in values[2:]:
        store.write(make_record(figures={"x": value}))
        table, _ = Index(tmp_path).table()
    assert table.column("figures.x").to_pylist()[2:5] == [None, "true", "word"]
    briefs, _ = store.briefs()
    assert [r["figures"]["x"] for r in briefs] == values


def test_parts_of_different_shape_share_their_columns(tmp_path: Path) -> None:
    """The same name for a scalar, a part, a list or nothing; a dot within a name."""
    store = Store(tmp_path)
    shapes: list[dict[str, Any]] = [
        {"x": 1, "y": "a"}, {"y": "b", "x": 2}, {"x": {"z": 3}}, {"x": [4]}, {"x": None}, {},
        {"x.z": 5},
    ]  # fmt: skip
    for shape in shapes:
        store.write(make_record(figures=shape))
    table, _ = Index(tmp_path).table()
    found = {name: table.column(f"figures.{name}").to_pylist() for name in ("x", "y", "x.z")}
    assert found == {
        "x": [1, 2, None, None, None, None, None],
        "y": ["a", "b", None, None, None, None, None],
        "x.z": [None, None, 3, None, None, None, 5],
    }


def test_numbers_and_texts_that_files_of_others_hold(store: Store) -> None:
    """JSON reads 1e999 as infinity, and half a surrogate pair as a text that UTF-8 cannot hold."""
    path = min(store.records.glob("*.json"))
    whole = path.read_text().replace(": 10.0", ": 1e999")
    path.write_text(whole.replace('"reason": null', '"reason": "a\\ud800b"', 1))
    agrees(store)
    assert store.briefs()[0][0]["figures"]["train_per_s"] == float("inf")
    table, _ = read_table([store.root])
    assert table.column("reason").to_pylist()[0] == "a?b"
    assert table.column("figures.train_per_s").to_pylist()[0] == float("inf")


def test_an_index_that_is_a_pipe_is_passed_over(store: Store) -> None:
    store.briefs()
    path = store.root / "index.parquet"
    path.unlink()
    os.mkfifo(path)
    agrees(store)


def test_a_store_that_cannot_be_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the system call is what refuses."""

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    agrees(store)
    assert sorted(path.name for path in store.root.iterdir()) == ["artefacts", "records"]


def test_no_store_no_index(tmp_path: Path) -> None:
    assert Store(tmp_path / "missing").briefs() == ([], [])
    assert Store(tmp_path).briefs() == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_several_processes_read_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked readers against this process."""
    alone, _ = Index(store.root).table()
    (store.root / "index.parquet").unlink()
    monkeypatch.setattr(rows, "CHUNK", 1)
    monkeypatch.setattr(rows, "_workers", lambda files: 2)
    assert Index(store.root).table()[0].equals(alone)


def test_two_write_while_a_third_reads(tmp_path: Path) -> None:
    processes = [writer(tmp_path, tag, 12) for tag in ("a", "b")]
    seen = 0
    while any(process.poll() is None for process in processes):
        briefs, problems = Store(tmp_path).briefs()
        assert problems == []
        assert len(briefs) >= seen
        seen = len(briefs)
    assert [process.wait() for process in processes] == [0, 0]
    assert len(Store(tmp_path).briefs()[0]) == 24
    agrees(Store(tmp_path))


def test_killed_at_random_instants(tmp_path: Path) -> None:
    draw = random.Random(1)
    printed: set[str] = set()
    for attempt in range(2):
        process = writer(tmp_path, str(attempt), 10_000)
        assert process.stdout is not None
        printed.add(process.stdout.readline().strip())
        time.sleep(draw.uniform(0.02, 0.25))
        process.send_signal(signal.SIGKILL)
        printed |= set(process.stdout.read().split())
        process.wait()
        agrees(Store(tmp_path))
    found = {cast(Record, r)["id"] for r in Store(tmp_path).briefs()[0]}
    assert printed <= found
