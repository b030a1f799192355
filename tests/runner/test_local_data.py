"""Cells on data of the user's own, through the command line: the record has the data's hash."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from bench.shards.index import read
from tests.runner.cells import payload
from tests.runner.conftest import Done, python, records
from tests.shards.texts import prepared, write_lines
from tests.tasks.test_image_sources import idx

FEW = ("suite=smoke", "threads=1", "suite.baselines=false", "suite.ceilings=false",
       "scenario=quality", "suite.items.language=8", "suite.test_items=4",
       "suite.validation_items=4")  # fmt: skip


def run(results: Path, *words: str) -> Done:
    return python("-m", "bench", f"results={results}", *FEW, *words)


@pytest.mark.slow
def test_shards(tmp_path: Path, results: Path) -> None:
    folder = tmp_path / "shards"
    write_lines(tmp_path / "text", 10_000)
    index = prepared(folder, tmp_path / "text")
    words = ("task=stream", f"task.path={folder}", "model=resnet", "size=micro")
    done = run(results, *words)
    assert done.code == 0, done.err
    [record] = records(results)
    assert record["status"] == "ok"
    assert record["data"]["sha256"] == index.sha256
    assert record["data"]["id"] == f"path-text-{index.sha256[:8]}"
    assert record["data"]["sizes"] == {"train": 128_000, "validation": 16_000, "test": 16_000}
    assert record["quality"]["train_tokens"] == 8 * 256
    assert record["quality"]["metric"] == "bits_per_byte"
    # What is finished is kept; where the text is another one, it is measured again.
    assert "1 of 1 cells are finished already" in run(results, *words).out
    shard = folder / "train-00000.bin"
    data = bytearray(shard.read_bytes())
    data[77] ^= 1
    shard.write_bytes(data)
    spoilt = run(results, *words)
    assert spoilt.code == 2
    assert f"task.path={folder} is damaged: train-00000.bin differs from its hash" in spoilt.err
    assert "Traceback" not in spoilt.err
    assert len(records(results)) == 1


def test_shards_of_another_machine_are_read_alike(tmp_path: Path) -> None:
    """Bytes are little-endian whatever wrote them; `sha256sum` says what the index does."""
    write_lines(tmp_path / "text", 10_000)
    index = prepared(tmp_path / "shards", tmp_path / "text")
    for part in index.parts.values():
        for shard in part.shards:
            content = (tmp_path / "shards" / shard.name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == shard.sha256
    assert read(tmp_path / "shards", "x") == index


def test_mnist(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, count in (("train", 200), ("t10k", 30)):
        images = rng.integers(256, size=(count, 28, 28), dtype=np.uint8)
        images_file = folder / f"{name}-images-idx3-ubyte.gz"
        images_file.write_bytes(gzip.compress(idx(images)))
        labels = folder / f"{name}-labels-idx1-ubyte.gz"
        labels.write_bytes(gzip.compress(idx(np.arange(count) % 10)))
    check_images(tmp_path, "mnist", folder, {"train": 180, "validation": 20, "test": 30})


def test_cifar10(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in (*range(1, 6), None):
        rows = rng.integers(256, size=(40, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(40) % 10
        name = "test_batch.bin" if number is None else f"data_batch_{number}.bin"
        (folder / name).write_bytes(rows.tobytes())
    check_images(tmp_path, "cifar10", folder, {"train": 180, "validation": 20, "test": 40})


def check_images(workdir: Path, task: str, folder: Path, sizes: dict[str, int]) -> None:
    """The parts of a record that the measured process makes, without a process for it."""
    words = (f"task={task}", f"task.path={folder}", "model=resnet", "scenario=quality")
    found = payload(workdir, *words, "suite.items.classify=32")
    assert found["status"] == "ok", found["reason"]
    assert len(found["data"]["sha256"]) == 64
    assert found["data"]["id"] == f"path-{folder.name}-{found['data']['sha256'][:8]}"
    assert found["data"]["sizes"] == sizes
    assert found["quality"]["metric"] == "accuracy"
    assert found["quality"]["train_items"] == 32
