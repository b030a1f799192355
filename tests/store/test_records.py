"""Every word of `records`, through the command line."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.identity import source_hash
from bench.store import Record, Store, prune
from bench.store.tables import read_table
from tests.factories import items_file, make_record, quality

ROOT = Path(__file__).resolve().parents[2]
DAY = 86_400
Captured = pytest.CaptureFixture[str]


def words(capsys: Captured, *arguments: object, code: int = 0) -> str:
    """What the command prints on stdout; on stderr where it is to fail with 2."""
    assert main(["records", *map(str, arguments)]) == code
    out, err = capsys.readouterr()
    return err if code == 2 else out


def scored(model: str, seed: int, value: float | None, **more: Any) -> Record:
    section = quality(value=value) if value is not None else None
    return make_record(model=model, seed=seed, scenario="quality", quality=section, **more)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two models, three seeds, one of which failed."""
    made = Store(tmp_path / "results")
    for place, model in enumerate(("mamba", "moe")):
        for seed in range(3):
            failed = model == "moe" and seed == 2
            record = scored(
                model, seed, None if failed else 2.0 + place + seed / 10,
                status="failed" if failed else "ok", source=source_hash() if seed else "0" * 64,
                created=f"2026-11-2{seed + 3}T10:00:00+00:00",
            )  # fmt: skip
            made.write(record, {} if failed else {"items.npy": items_file([1.0, seed])})
    return made


def names(text: str) -> list[tuple[str, int]]:
    """Model and seed of the records whose files are printed."""
    found = [json.loads(Path(line).read_bytes())["cell"] for line in text.splitlines()]
    return [(cell["model"], cell["seed"]) for cell in found]


MAMBA = [("mamba", 0), ("mamba", 1), ("mamba", 2)]
MOE = [("moe", 0), ("moe", 1), ("moe", 2)]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ("model=mamba", MAMBA),
        ("model!=mamba", MOE),
        ("model=mamba,moe seed=1", [MAMBA[1], MOE[1]]),
        ("model!=mamba,moe", []),
        ("status=failed", [MOE[2]]),
        ("quality<2.15", MAMBA[:2]),
        ("quality<=2.2 seed>0", MAMBA[1:]),
        ("quality>=3.1", [MOE[1]]),
        ("quality!=2.0", [*MAMBA[1:], *MOE]),
        ("quality=null", [MOE[2]]),
        ("quality!=null model=moe", MOE[:2]),
        ("created=2026-11-24", [MAMBA[1], MOE[1]]),
        ("created>2026-11-24", [MAMBA[2], MOE[2]]),
        ("created<=2026-11-24T10:00:00Z", [*MAMBA[:2], *MOE[:2]]),
        ("created<2026-11-24", [MAMBA[0], MOE[0]]),
        ("source=0000", [MAMBA[0], MOE[0]]),
        ("commit=cccc seed=2", [MAMBA[2], MOE[2]]),
        ("compile=false seed=0", [MAMBA[0], MOE[0]]),
        ("valid=true seed=0", [MAMBA[0], MOE[0]]),
        ("cell.seed=2 parameters.total>300000", [MAMBA[2], MOE[2]]),
        ("gpu=null seed=0", [MAMBA[0], MOE[0]]),
        ("gpu=H100", []),
    ],
)
def test_conditions(
    store: Store, capsys: Captured, conditions: str, expected: list[tuple[str, int]]
) -> None:
    assert names(words(capsys, "where", conditions, "--in", store.root)) == expected
    assert len(words(capsys, "where", *conditions.split(), "--in", store.root).split()) == len(
        expected
    )


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("modle=moe", ("modle", "allowed", "model", "Did you mean 'model'?")),
        ("quality<good", ("quality<good", "'good' is no number")),
        ("created>soon", ("created>soon", "2026-11-25")),
        ("compile<true", ("compile", "true or false", "= and !=")),
        ("valid=yes", ("valid", "true, false, null")),
        ("model", ("'model' is no condition", "KEY")),
        ("model='a", ("no condition",)),
    ],
)
def test_a_wrong_condition_is_one_sentence(
    store: Store, capsys: Captured, condition: str, told: tuple[str, ...]
) -> None:
    error = words(capsys, "where", condition, "--in", store.root, code=2)
    assert error.count("\n") == 1
    assert all(part in error for part in told)


def test_a_store_without_records_has_none_that_meet_them(tmp_path: Path, capsys: Captured) -> None:
    root = tmp_path / "results"
    Store(root).check_writable()  # as a run leaves it whose cells were all refused
    for condition in ("status=failed", "id=x", "created>2026-11-24", "seed=1 quality<2"):
        assert words(capsys, "where", condition, "--in", root) == ""
    assert words(capsys, "list", root).splitlines()[-1] == "0 records"
    for option in ("--failed", "--stale", "--where=status=failed"):
        assert words(capsys, "prune", root, option).startswith("0 to remove")
    count = words(capsys, "sql", "select count(*) from records where model = 'moe'", "--in", root)
    assert count.split()[-1] == "0"
    assert "modle is no column" in words(capsys, "where", "modle=moe", "--in", root, code=2)


def test_list_in_three_forms(store: Store, capsys: Captured) -> None:
    where = ("--where", "model=moe", "--where", "seed<2")
    table = words(capsys, "list", store.root, *where)
    assert table.splitlines()[-1] == "2 records"
    found = json.loads(words(capsys, "list", store.root, *where, "--format", "json"))
    assert [row["quality.value"] for row in found] == [3.0, 3.1]
    assert all(row["id"] in table for row in found)
    text = words(capsys, "list", store.root, *where, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["id"] for row in rows] == [row["id"] for row in found]
    assert [float(row["quality.value"]) for row in rows] == [3.0, 3.1]


def content(root: Path) -> dict[str, bytes]:
    """Every file of a store but the index."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "index.parquet"
    }


def test_merge_takes_each_once(store: Store, tmp_path: Path, capsys: Captured) -> None:
    other = Store(tmp_path / "other")
    extra = scored("rwkv", 0, 1.0)
    other.write(extra, {"items.npy": items_file([3.0])})
    (shared,) = (
        r for r in store.read_all()[0] if r["cell"]["seed"] == 1 and r["cell"]["model"] == "moe"
    )
    items = store.artefact(shared, "items.npy").read_bytes()
    other.write(shared, {"items.npy": items})
    target = tmp_path / "target"
    said = words(capsys, "merge", store.root, other.root, target)
    assert "7 records added, 0 were there, 6 artefacts copied, 0 problems" in said
    union = content(store.root) | content(other.root)
    assert content(target) == union
    said = words(capsys, "merge", store.root, other.root, target)
    assert "0 records added, 7 were there, 0 artefacts copied" in said
    assert content(target) == union
    assert Store(target).verify() == []


def test_merge_refuses_a_folder_that_cannot_be_listed(
    store: Store, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may list anything, so the system call is what refuses."""
    listed = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path) == store.records:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr("os.scandir", refuse)
    error = words(capsys, "merge", store.root, tmp_path / "target", code=2)
    assert f"'{store.records}' cannot be listed (Permission denied)" in error


def test_merge_refuses_one_id_for_two(store: Store, tmp_path: Path, capsys: Captured) -> None:
    other = Store(tmp_path / "other")
    record = store.read_all()[0][0]
    other.write({**record, "status": "failed"})
    target = tmp_path / "target"
    error = words(capsys, "merge", store.root, other.root, target, code=2)
    assert record["id"] in error
    assert str(other.root) in error
    assert error.count("\n") == 1
    assert not target.exists()
    # and against what the target holds
    words(capsys, "merge", store.root, target)
    before = content(target)
    assert record["id"] in words(capsys, "merge", other.root, target, code=2)
    assert content(target) == before


def test_merge_takes_the_whole_artefact(store: Store, tmp_path: Path, capsys: Captured) -> None:
    other, target = tmp_path / "other", tmp_path / "target"
    words(capsys, "merge", store.root, other)
    record = store.read_all()[0][0]
    path = store.artefact(record, "items.npy")
    path.write_bytes(b"forged")
    lost = store.artefact(store.read_all()[0][1], "items.npy")
    lost.unlink()
    said = words(capsys, "merge", store.root, target, code=1)
    assert "2 problems" in said
    assert "forged" not in str(content(target))
    assert "0 problems" in words(capsys, "merge", store.root, other, target)
    assert content(target) == content(other)
    assert str(target) in words(capsys, "merge", target, target, code=2)


def test_a_killed_merge_is_run_again(tmp_path: Path, capsys: Captured) -> None:
    source, target = Store(tmp_path / "source"), tmp_path / "target"
    for _ in range(60):
        source.write(make_record(), {"a.bin": os.urandom(20_000)})
    command = [sys.executable, "-m", "bench", "records", "merge", str(source.root), str(target)]
    draw = random.Random(2)
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while not (target / "artefacts").is_dir() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert Store(target).verify() == []
    words(capsys, "merge", source.root, target)
    kept = {name: data for name, data in content(target).items() if not name.endswith(".tmp")}
    assert kept == content(source.root)


def test_verify(store: Store, capsys: Captured) -> None:
    assert words(capsys, "verify", store.root) == ""
    records, _ = store.read_all()
    store.artefact(records[0], "items.npy").write_bytes(b"forged")
    store.artefact(records[1], "items.npy").unlink()
    (store.records / "bad.json").write_text("{")
    lines = words(capsys, "verify", store.root, code=1).splitlines()
    assert len(lines) == 3
    for part in (records[0]["id"], records[1]["id"], "bad.json"):
        assert sum(part in line for line in lines) == 1
    assert "nowhere" in words(capsys, "verify", store.root / "nowhere", code=2)


def test_index(store: Store, capsys: Captured) -> None:
    path = store.root / "index.parquet"
    assert "6 records" in words(capsys, "index", store.root)
    before = path.stat().st_mtime_ns
    words(capsys, "index", store.root)
    assert path.stat().st_mtime_ns == before
    words(capsys, "index", store.root, "--rebuild")
    assert path.stat().st_mtime_ns != before
    assert "quality.value" in words(capsys, "index", store.root, "--columns").split()


def test_sql(store: Store, capsys: Captured) -> None:
    query = "select model, max(quality) best from records group by model order by model"
    found = words(capsys, "sql", query, "--in", store.root, "--format", "json")
    assert json.loads(found) == [{"model": "mamba", "best": 2.2}, {"model": "moe", "best": 3.1}]
    assert words(capsys, "sql", query, "--in", store.root).split() == [
        "model", "best", "mamba", "2.2", "moe", "3.1",
    ]  # fmt: skip
    for bad in ("select modle from records", "selec 1", ""):
        error = words(capsys, "sql", bad, "--in", store.root, code=2)
        assert error.count("\n") == 1


def left(store: Store) -> list[tuple[str, int]]:
    records, problems = Store(store.root).read_all()
    assert problems == []
    assert Store(store.root).verify() == []
    folders = {path.name for path in store.artefacts.iterdir()}
    assert folders == {r["id"] for r in records if r["artefacts"]}
    return [(r["cell"]["model"], r["cell"]["seed"]) for r in records]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ((), MAMBA + MOE),
        (("--failed",), MAMBA + MOE[:2]),
        (("--stale",), MAMBA[1:] + MOE[1:]),
        (("--stale", "--failed"), [*MAMBA[1:], MOE[1]]),
        (("--stale", "--where", "model=moe"), MAMBA + MOE[1:]),
        (("--where", "seed>0"), [MAMBA[0], MOE[0]]),
        (("--stale", "--keep", "1"), MAMBA + MOE),
        (("--keep", "0"), []),
    ],
)
def test_prune_removes_what_it_showed(
    store: Store, capsys: Captured, options: tuple[str, ...], kept: list[tuple[str, int]]
) -> None:
    before = content(store.root)
    shown = words(capsys, "prune", store.root, *options).splitlines()
    assert content(store.root) == before
    assert "nothing was removed" in shown[-1]
    words(capsys, "prune", store.root, *options, "--yes")
    assert left(store) == kept
    gone = {str(store.root / name) for name in before.keys() - content(store.root).keys()}
    assert {name for name in gone if name.endswith(".json")} == {
        line.split("  ")[0] for line in shown[:-1]
    }


def test_prune_keeps_the_newest(tmp_path: Path, capsys: Captured) -> None:
    store = Store(tmp_path)
    made = [make_record(created=f"2026-11-{day}T10:00:00+00:00") for day in (20, 22, 21)]
    other = make_record(seed=1, created="2026-11-01T10:00:00+00:00")
    for record in (*made, other):
        store.write(record)
    words(capsys, "prune", tmp_path, "--keep", "2", "--yes")
    assert [r["id"] for r in Store(tmp_path).read_all()[0]] == [
        made[1]["id"], made[2]["id"], other["id"],
    ]  # fmt: skip


def test_prune_clears_leftovers_of_yesterday(store: Store, capsys: Captured) -> None:
    record = store.read_all()[0][0]
    old = [
        store.root / ".index.parquet.0a.tmp", store.records / ".x.0a.tmp",
        store.artefacts / record["id"] / ".items.npy.0a.tmp",
        store.artefacts / "killed" / "items.npy",
    ]  # fmt: skip
    young = [store.records / ".y.0a.tmp", store.artefacts / "writing" / "items.npy"]
    for path in (*old, *young):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    yesterday = time.time() - DAY - 60
    for path in (*old, store.artefacts / "killed"):
        os.utime(path, (yesterday, yesterday))
    shown = words(capsys, "prune", store.root)
    assert "4 to remove" in shown
    assert all(path.exists() for path in (*old, *young))
    words(capsys, "prune", store.root, "--yes")
    assert not any(path.exists() for path in old)
    assert not (store.artefacts / "killed").exists()
    assert all(path.exists() for path in young)
    assert len(store.read_all()[0]) == 6


def test_prune_knows_packages_of_the_user(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner's hash covers packages that targets name, so such a record is not stale."""
    (tmp_path / "lib" / "mine").mkdir(parents=True)
    (tmp_path / "lib" / "mine" / "__init__.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    store = Store(tmp_path / "results")
    config = {"model": {"kinds": [{"_target_": "mine.Model"}]}}
    current = make_record(source=source_hash(("mine",)), config=config)
    older = make_record(source="1" * 64, config=config)
    for record in (current, older):
        store.write(record)
    words(capsys, "prune", store.root, "--stale", "--yes")
    assert [r["id"] for r in Store(store.root).read_all()[0]] == [current["id"]]


def test_prune_takes_one_store(store: Store, capsys: Captured) -> None:
    error = words(capsys, "prune", store.root.parent, "--failed", "--yes", code=2)
    assert str(store.root) in error
    assert len(store.read_all()[0]) == 6
    assert "--keep -1" in words(capsys, "prune", store.root, "--keep", "-1", code=2)
    assert "seeed" in words(capsys, "prune", store.root, "--where", "seeed=1", "--yes", code=2)
    assert len(Store(store.root).read_all()[0]) == 6


def test_prune_bears_what_goes_meanwhile(
    store: Store, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that runs renames its temporary files and removes folders that it does not need."""
    renamed, unneeded = store.records / ".x.0a.tmp", store.artefacts / "unneeded"
    renamed.touch()
    unneeded.mkdir()
    lstat, scandir = Path.lstat, os.scandir

    def late(path: Path) -> os.stat_result:
        if path == renamed:
            path.unlink(missing_ok=True)
        return lstat(path)

    def scan(path: Any) -> Any:
        if str(path) == str(unneeded) and unneeded.exists():
            unneeded.rmdir()
        return scandir(path)

    monkeypatch.setattr(Path, "lstat", late)
    monkeypatch.setattr(os, "scandir", scan)
    assert words(capsys, "prune", store.root).startswith("0 to remove")
    assert not renamed.exists()
    assert not unneeded.exists()


def test_a_record_that_went_meanwhile_is_not_chosen(
    store: Store, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(paths: Any) -> Any:
        found = read_table(paths)
        for path in store.records.glob("*.json"):
            path.unlink()  # another prune
        return found

    for option in ("--failed", "--stale", "--keep=0"):
        monkeypatch.setattr("bench.records.prune.read_table", late)
        assert words(capsys, "prune", store.root, option).startswith("0 to remove")
        monkeypatch.undo()
        store.write(scored("moe", 5, None, status="failed", source="0" * 64))


def test_what_changed_meanwhile_is_kept(store: Store) -> None:
    records, _ = store.read_all()
    found = [prune.of_record(store, record["id"], "test") for record in records[:2]]
    items = [item for item in found if item is not None]
    os.utime(items[0].path, ns=(1, 1))
    removed, kept = prune.remove(items)
    assert (removed, kept) == ([items[1]], [items[0]])
    assert items[0].path.exists()
    assert not items[1].path.exists()
