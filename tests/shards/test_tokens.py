"""Shards read as one array: numpy's own slices of the joined bytes are the oracle."""

import os
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.shards import tokens
from bench.shards.index import DTYPES, Part, Shard
from bench.shards.tokens import Tokens


def write(folder: Path, sizes: list[int], dtype: str = "uint8") -> tuple[Tokens, np.ndarray]:
    """Shards of random symbols in a folder, and all symbols in one array."""
    rng = np.random.default_rng(0)
    high = np.iinfo(dtype).max
    pieces = [rng.integers(high, size=n, dtype=dtype, endpoint=True) for n in sizes]
    for number, piece in enumerate(pieces):
        little = piece.astype(piece.dtype.newbyteorder("<"))
        (folder / f"{number}.bin").write_bytes(little.tobytes())
    shards = tuple(Shard(f"{n}.bin", len(piece), "") for n, piece in enumerate(pieces))
    return Tokens(folder, Part(dtype, 0, shards)), np.concatenate(pieces)


@pytest.mark.parametrize("dtype", DTYPES)
def test_slices_are_those_of_one_array(tmp_path: Path, dtype: str) -> None:
    found, whole = write(tmp_path, [7, 1, 12, 3, 300], dtype)
    assert len(found) == len(whole) == 323
    rng = np.random.default_rng(1)
    for begin, end in [(0, 323), (0, 0), (6, 9), (322, 400), *rng.integers(323, size=(50, 2))]:
        assert np.array_equal(found[int(begin) : int(end)], whole[int(begin) : int(end)])
    assert [int(found[i]) for i in (0, 7, 8, 322)] == [int(whole[i]) for i in (0, 7, 8, 322)]
    assert found[0:5].dtype == whole.dtype


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    length=st.integers(1, 12),
    data=st.data(),
)
def test_windows_are_those_of_one_array(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], length: int, data: st.DataObject
) -> None:
    """In any order, also such that cross shards."""
    found, whole = write(tmp_path_factory.mktemp("shards"), sizes)
    length = min(length, len(whole))
    starts = np.array(data.draw(st.lists(st.integers(0, len(whole) - length), max_size=20)), int)
    expected = [whole[s : s + length] for s in starts]
    assert np.array_equal(found.take(starts, length), np.array(expected).reshape(-1, length))


def test_few_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "OPEN", 4)
    found, whole = write(tmp_path, [10] * 60)
    before = psutil.Process().num_fds()
    assert np.array_equal(found.take(np.arange(0, 590), 10)[:, 0], whole[:590])
    assert psutil.Process().num_fds() <= before + 2 * 4


def test_windows_from_all_over_take_no_memory(tmp_path: Path) -> None:
    """Of 64 MiB of shards, each MiB of which is touched."""
    found, _ = write(tmp_path, [1 << 24] * 4)
    starts = np.random.default_rng(0).integers(len(found) - 256, size=(20, 512))
    found.take(starts[0], 256)
    before = psutil.Process().memory_info().rss
    peak = 0
    for row in starts:
        found.take(row, 256)
        peak = max(peak, psutil.Process().memory_info().rss)
    assert peak < before + (2 << 20)


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="maps are read there")
def test_a_file_that_is_cut_short_meanwhile_is_named(tmp_path: Path) -> None:
    found, _ = write(tmp_path, [1000])
    found.take(np.array([900]), 100)
    os.truncate(tmp_path / "0.bin", 950)
    with pytest.raises(ValueError, match=r"0\.bin was cut short"):
        found.take(np.array([900]), 100)


def test_maps_are_read_where_files_cannot_be_read_at_a_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "preadv", raising=False)
    found, whole = write(tmp_path, [40, 60], "uint16")
    windows = found.take(np.array([90, 35, 0]), 10)
    assert np.array_equal(windows, [whole[90:], whole[35:45], whole[:10]])
