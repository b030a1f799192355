"""Folders that are not what they should be are refused in one sentence that names the key."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.shards import verify as verifying
from bench.shards.jobs import PIECE
from tests.shards.texts import command, prepared, stream_task, write_lines

LINES = PIECE // 8  # two MiB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lines(tmp_path / "text", LINES)
    prepared(tmp_path / "shards", tmp_path / "text")
    return tmp_path / "shards"


def refused(folder: Path, *parts: str, **changes: Any) -> str:
    with pytest.raises(ValueError, match=r"^task\.") as error:
        stream_task(folder, **changes)
    message = str(error.value)
    for part in parts:
        assert part in message
    assert "\n" not in message
    return message


def edit_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / "index.json").read_text())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


def test_shards_that_are_missing_truncated_or_flipped(folder: Path) -> None:
    stream_task(folder)
    shard = folder / "train-00001.bin"
    data = bytearray(shard.read_bytes())
    times = (shard.stat().st_atime_ns, shard.stat().st_mtime_ns)
    shard.unlink()
    refused(folder, f"task.path={folder} is damaged", "train-00001.bin", "No such file", "again")
    shard.write_bytes(data[:-1])
    refused(folder, f"train-00001.bin has {len(data) - 1} bytes instead of the {len(data)}")
    shard.write_bytes(bytes(data) + b"x")
    refused(folder, f"train-00001.bin has {len(data) + 1} bytes instead")
    flipped = data.copy()
    flipped[500] ^= 1
    shard.write_bytes(flipped)
    refused(folder, "train-00001.bin differs from its hash")
    refused(folder, "train-00001.bin differs from its hash")  # not remembered as sound
    assert command(folder, "--verify") == 2
    # A disk that changes a byte and not the time is found by the command.
    shard.write_bytes(data)
    os.utime(shard, ns=times)
    stream_task(folder)
    shard.write_bytes(flipped)
    os.utime(shard, ns=times)
    stream_task(folder)
    assert command(folder, "--verify") == 2
    refused(folder, "train-00001.bin differs from its hash")
    assert command(folder, "--path", folder.parent / "text", "--shard-mb", 1,
                   "--shares", 0.8, 0.1, 0.1) == 0  # fmt: skip
    assert shard.read_bytes() == data
    stream_task(folder)


def test_a_folder_is_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    own = verifying._hash

    def noted(path: Path) -> str:
        read.append(path.name)
        return own(path)

    monkeypatch.setattr(verifying, "_hash", noted)
    stream_task(folder)
    assert read == []  # the preparation did
    (folder / "test-00000.bin").touch()
    stream_task(folder)
    stream_task(folder)
    assert read == ["test-00000.bin"]
    (folder / verifying.SEEN).write_text("no JSON")
    stream_task(folder)
    assert len(read) == 1 + 4


def test_indices_that_are_damaged(folder: Path) -> None:
    whole = (folder / "index.json").read_text()

    def damaged(*parts: str, **changes: Any) -> None:
        refused(folder, "its index.json is damaged", *parts)
        (folder / "index.json").write_text(whole)

    (folder / "index.json").write_text(whole[:100])
    damaged("JSONDecodeError")
    (folder / "index.json").write_text("[]")
    damaged()
    for key in ("parts", "sha256", "format"):
        edit_index(folder, lambda i, key=key: i.pop(key))
        damaged(key)
    edit_index(folder, lambda i: i.update(version=99))
    damaged("version")
    edit_index(folder, lambda i: i["parts"]["train"].update(dtype="float32"))
    damaged("train is float32", "uint8, uint16, uint32")
    edit_index(folder, lambda i: i["parts"]["train"]["shards"][0].update(name="../text"))
    damaged("../text")
    edit_index(folder, lambda i: i["parts"]["train"]["shards"][0].update(symbols=-1))
    damaged()
    # A type that the files do not have shows in their length.
    edit_index(folder, lambda i: i["parts"]["train"].update(dtype="uint16"))
    refused(folder, "train-00000.bin has", "instead of the", "symbols in uint16")


def test_folders_that_were_not_prepared(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path, f"task.path={tmp_path} has no index.json", "python -m bench.prepare")
    refused(tmp_path / "text", "has no index.json")
    refused(tmp_path / "none", "has no index.json")
    (folder / "index.json").unlink()
    refused(folder, "is not finished", "goes on")


def test_texts_shorter_than_a_context(folder: Path) -> None:
    message = refused(folder, context=300_000)
    assert "its validation part has 209" in message
    assert "task.context=300000" in message
    stream_task(folder, context=209_000)


def test_keys_that_cannot_be(folder: Path) -> None:
    refused(folder, "task.path=null", path=None)
    for key, value in (("context", 0), ("scored", 0), ("workers", -1), ("workers", 1.5)):
        refused(folder, f"task.{key}={value}", **{key: value})
    refused(folder, "task.vocab_size=300", vocab_size=300)
    refused(folder, "task.tokenizer=x did not make", tokenizer="x")
