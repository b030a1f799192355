"""`records merge`: each id once, with its artefacts, whatever happens."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.store import Store
from tests.factories import items_file, make_record
from tests.store.command import Captured, content, scored, words

ROOT = Path(__file__).resolve().parents[2]


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
