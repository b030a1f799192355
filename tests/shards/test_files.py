"""Local files as text: where they are cut, what stands in which split, and bad paths."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.shards import files
from bench.shards.files import Files, boundary
from bench.shards.jobs import PIECE
from tests.shards.texts import SHARES, lines, parts, prepared, write_lines


@given(text=st.binary(max_size=60), near=st.integers(1, 30))
def test_cuts_keep_their_order_and_lie_behind_lines(text: bytes, near: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "NEAR", near + 3)
        stream = io.BytesIO(text)
        found = [boundary(stream, at, len(text)) for at in range(len(text) + 1)]
    assert found[0] == 0
    assert found[-1] == len(text)
    for at, cut in enumerate(found[1:-1], 1):
        assert at <= cut <= len(text)
        line = text.find(b"\n", at - 1, at + near + 2)
        assert cut == line + 1 if line >= 0 else cut <= at + 3


@given(text=st.text(alphabet="aß東🙂", min_size=1, max_size=30))
def test_without_lines_cuts_lie_between_characters(text: str) -> None:
    data = text.encode()
    cuts = [boundary(io.BytesIO(data), at, len(data)) for at in range(len(data) + 1)]
    assert sorted(cuts) == cuts
    assert "".join(data[a:b].decode() for a, b in itertools.pairwise(cuts)) == text


def test_one_file_is_cut_in_three_as_numpy_cuts_it(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "text", 10_000)
    index = prepared(tmp_path / "out", tmp_path / "text")
    raw = np.frombuffer(data, dtype=np.uint8)
    held = parts(tmp_path / "out")
    assert held["train"] == raw[:128_000].tobytes()
    assert held["validation"] == raw[128_000:144_000].tobytes()
    assert held["test"] == raw[144_000:].tobytes()
    assert index.split == "1 file in order of name, cut in three at 80/10/10"
    assert {s: p.bytes for s, p in index.parts.items()} == {s: len(p) for s, p in held.items()}


def test_whole_files_go_to_one_split(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    texts = {f"{n}.txt": write_lines(folder / f"{n}.txt", 100, seed=n) for n in range(60)}
    index = prepared(tmp_path / "out", folder)
    assert "whole ones by the hash of their names" in index.split
    held = parts(tmp_path / "out")
    for text in texts.values():
        assert [text in part for part in held.values()].count(True) == 1
    assert sum(map(len, held.values())) == 60 * 1600
    assert len(held["test"]) == pytest.approx(0.1 * 60 * 1600, rel=0.25)
    # Where the folder lies decides nothing.
    folder.rename(tmp_path / "moved")
    assert prepared(tmp_path / "again", tmp_path / "moved").sha256 == index.sha256


def test_few_files_are_cut_across(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    data = b"".join(write_lines(folder / name, 5000, seed=n) for n, name in enumerate("ab"))
    index = prepared(tmp_path / "out", folder)
    assert "2 files in order of name, cut in three" in index.split
    held = parts(tmp_path / "out")
    assert b"".join(held.values()) == data
    assert len(held["train"]) == 0.8 * len(data)


@pytest.mark.parametrize("shard", [1, 2, 3])
def test_the_size_of_shards_changes_no_byte_and_no_hash(tmp_path: Path, shard: int) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":  # lines of all lengths, one of them longer than is looked ahead
        words = [bytes(rng.integers(97, 123, rng.integers(1, 200)).tolist()) for _ in range(9000)]
        (folder / name).write_bytes(b"\n".join([*words, b"x" * 200_000, *words[:3000]]))
    index = prepared(tmp_path / "out", folder, shard_bytes=shard * PIECE)
    whole = prepared(tmp_path / "whole", folder, shard_bytes=64 * PIECE)
    assert index.sha256 == whole.sha256
    assert parts(tmp_path / "out") == parts(tmp_path / "whole")
    sizes = [s.symbols for p in index.parts.values() for s in p.shards]
    assert len(sizes) >= 3.2 / shard
    assert max(sizes) <= shard * PIECE + (1 << 16)
    assert len(whole.parts["train"].shards) == 1


def test_the_hash_is_that_of_the_text(tmp_path: Path) -> None:
    text = tmp_path / "text"
    data = bytearray(write_lines(text, 10_000))
    first = prepared(tmp_path / "1", text).sha256
    data[5] ^= 1
    text.write_bytes(data)
    assert prepared(tmp_path / "2", text).sha256 != first
    text.write_bytes(lines(10_000))
    assert prepared(tmp_path / "3", text).sha256 == first
    assert prepared(tmp_path / "4", text, shares=(0.7, 0.2, 0.1)).sha256 != first


def test_paths_without_text_are_refused(tmp_path: Path) -> None:
    def refused(path: Path, words: str) -> None:
        with pytest.raises(ValueError, match=words) as error:
            Files(str(path), SHARES)
        assert f"--path {path}" in str(error.value)
        assert "allowed is" in str(error.value)

    refused(tmp_path / "none", "does not exist")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "holds no files")
    (tmp_path / "folder" / "empty").touch()
    refused(tmp_path / "folder", "is empty")
    refused(tmp_path / "*.txt", "does not exist")
