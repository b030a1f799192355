"""`records prune`: it removes what it showed, and nothing that changed meanwhile."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from bench.identity import source_hash
from bench.store import Store, prune
from bench.store.tables import read_table
from tests.factories import make_record
from tests.store.command import DAY, MAMBA, MOE, Captured, content, scored, words


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
