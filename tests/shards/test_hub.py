"""Data sets as text for shards: local folders stand for those of the hub."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from bench.shards import hub
from bench.shards.hub import Hub
from bench.shards.index import Index, read
from bench.shards.jobs import PIECE
from bench.shards.preparing import prepare
from bench.tasks.sources import from_hub
from tests.shards.texts import SHARES, command, parts

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def write(path: Path, rows: list[Any]) -> None:
    path.write_text("\n".join(json.dumps({"n": n, "text": text}) for n, text in enumerate(rows)))


def made(out: Path, folder: Path, **changes: Any) -> Index:
    values: dict[str, Any] = {"tokenizer": None, "shard_bytes": PIECE, "workers": 1}
    source = Hub(str(folder), None, "text", SHARES)
    return prepare(source, out, shares=SHARES, say=lambda line: None, **(values | changes))


def test_own_splits_are_kept(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        write(folder / f"{split}.jsonl", [f"{split} {n} ü" for n in range(5000)])
    index = made(tmp_path / "out", folder)
    task = from_hub(str(folder), None, "text", SHARES)  # as task text reads it
    assert parts(tmp_path / "out") == task.parts
    assert index.split == "the data set's own"
    assert index.name == "hub-set"


def test_rows_are_split_by_their_text(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "GROUP", 128)
    rows = [f"row {n % 4500}" for n in range(5000)]  # 500 of them stand twice
    write(folder / "train.jsonl", [*rows, None, "with its own break\n"])
    index = made(tmp_path / "out", folder)
    held = {s: part.decode().splitlines() for s, part in parts(tmp_path / "out").items()}
    assert sorted(itertools.chain(*held.values())) == sorted([*rows, "with its own break"])
    assert not set(held["train"]) & set(held["validation"])
    assert not set(held["train"]) & set(held["test"])
    assert not set(held["validation"]) & set(held["test"])
    # Each part keeps the order of the rows.
    place = {row: n for n, row in reversed(list(enumerate(rows)))}
    first = [place[row] for row in dict.fromkeys(held["test"])]
    assert first == sorted(first)
    for split, share in (("validation", 0.1), ("test", 0.1)):
        assert len(set(held[split])) / 4500 == pytest.approx(share, abs=0.02)  # four deviations
    assert "by the hash of their text, 10 % are validation and 10 % are test" in index.split


def test_what_is_missing_is_taken_from_train(folder: Path, tmp_path: Path) -> None:
    write(folder / "train.jsonl", [f"row {n}" for n in range(900)])
    write(folder / "test.jsonl", ["the test"] * 30)
    made(tmp_path / "out", folder)
    held = parts(tmp_path / "out")
    assert held["test"] == b"the test\n" * 30
    rows = held["validation"].decode().splitlines()
    assert len(rows) == pytest.approx(900 / 9, rel=0.4)


def test_shards_and_workers_change_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "train.jsonl", [f"{n} " * 60 for n in range(20_000)])  # 6.5 MB
    one = made(tmp_path / "1", folder)
    two = made(tmp_path / "2", folder, shard_bytes=3 * PIECE)
    both = made(tmp_path / "both", folder, workers=2)
    assert len(one.parts["train"].shards) > len(two.parts["train"].shards) > 1
    assert one.sha256 == two.sha256
    assert both == one
    assert parts(tmp_path / "1") == parts(tmp_path / "2") == parts(tmp_path / "both")
    sizes = [shard.symbols for shard in one.parts["train"].shards[:-1]]
    assert all(PIECE / 3 < size < 2 * PIECE for size in sizes)


def test_the_command_takes_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "train.jsonl", [f"row {n}" for n in range(900)])
    words = [tmp_path / "out", "--hub", folder, "--workers", 1]
    assert command(*words, "--shares", 0.8, 0.1, 0.1) == 0
    assert read(tmp_path / "out", "x") == made(tmp_path / "again", folder)

    def refused(*given: object) -> str:
        capsys.readouterr()
        assert command(*given) == 2
        return capsys.readouterr().err.splitlines()[-1]  # behind the library's progress

    assert refused(*words).startswith(f"error: {tmp_path / 'out'} was begun with another shares")
    new = tmp_path / "new"
    said = refused(new, "--hub", folder, "--column", "body")
    assert said == f"error: --column body is not in {folder}; allowed are n, text"
    assert "--column n of" in refused(new, "--hub", folder, "--column", "n")
    assert "--hub " in refused(new, "--hub", tmp_path / "none")
    (folder / "train.jsonl").rename(folder / "validation.jsonl")
    assert "allowed is one with train" in refused(new, "--hub", folder)
