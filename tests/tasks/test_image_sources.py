"""Images that the user names: folders, MNIST's and CIFAR-10's files, data sets, and bad ones."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.tasks import image_sources
from bench.tasks.image_sources import to_grey
from bench.tasks.images import ImageFilesTask


def files_task(**changes: Any) -> ImageFilesTask:
    keys: dict[str, Any] = {
        "path": None,
        "hub": None,
        "hub_config": None,
        "levels": 256,
        "n_classes": 2,
        "height": 4,
        "width": 4,
    }
    return ImageFilesTask(**(keys | changes))


def write_images(folder: Path, count: int, seed: int, size: tuple[int, int] = (4, 4)) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8)).save(
            folder / f"{i}.png"
        )


def test_folder_of_classes_is_split_by_hash(tmp_path: Path) -> None:
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "animals" / name, 40, seed)
    task = files_task(path=str(tmp_path / "animals"))
    assert task.data.sizes == {"train": 64, "validation": 8, "test": 8}
    assert all(np.bincount(y).min() == len(y) // 2 for y in task.images.labels.values())
    assert task.data.sha256 == files_task(path=str(tmp_path / "animals")).data.sha256
    coarse = files_task(path=str(tmp_path / "animals"), levels=16)
    for split, pixels in task.images.pixels.items():
        assert np.array_equal(coarse.images.pixels[split].sum(), (pixels // 16).sum())
    assert task.example(3)["pixels"].shape == (3, 4, 4)
    names = [b.name for b in task.baselines()]
    assert names == ["most frequent class", "logistic regression", "nearest neighbours"]


def test_folders_of_splits_are_kept(tmp_path: Path) -> None:
    for seed, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        write_images(tmp_path / name, 20, seed)
    task = files_task(path=str(tmp_path))
    assert task.data.sizes == {"train": 36, "validation": 4, "test": 40}
    assert "validation" in task.data.notes["split"]


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def test_mnist_files_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {
        "train": rng.integers(256, size=(50, 4, 4)),
        "t10k": rng.integers(256, size=(9, 4, 4)),
    }
    for name, pixels in images.items():
        labels = np.arange(len(pixels)) % 2
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels)))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    task = files_task(path=str(tmp_path))
    assert np.array_equal(task.images.pixels["test"], images["t10k"])
    assert task.images.labels["test"].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert task.data.sizes["train"] + task.data.sizes["validation"] == 50
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1\0\0")
    with pytest.raises(ValueError, match="no IDX file"):
        files_task(path=str(tmp_path))
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"lacks t10k-labels.*allowed is"):
        files_task(path=str(tmp_path))


def write_mnist(folder: Path, packed: bool = False) -> None:
    rng = np.random.default_rng(0)
    for name, count in (("train", 50), ("t10k", 9)):
        images = idx(rng.integers(256, size=(count, 4, 4)))
        labels = idx(np.arange(count) % 2)
        for kind, data in (("images-idx3", images), ("labels-idx1", labels)):
            file = folder / f"{name}-{kind}-ubyte"
            if packed:
                file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(data))
            else:
                file.write_bytes(data)


def test_the_hash_is_that_of_pixels_and_labels(tmp_path: Path) -> None:
    for name in ("plain", "packed"):
        (tmp_path / name).mkdir()
        write_mnist(tmp_path / name, packed=name == "packed")
    plain, packed = (files_task(path=str(tmp_path / name)).data for name in ("plain", "packed"))
    assert plain.sha256 == packed.sha256
    assert plain.id == f"path-plain-{plain.sha256[:8]}"
    for kind in ("images-idx3", "labels-idx1"):
        file = tmp_path / "plain" / f"t10k-{kind}-ubyte"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        assert files_task(path=str(tmp_path / "plain")).data.sha256 != plain.sha256
        data[-1] ^= 1
        file.write_bytes(data)
    assert files_task(path=str(tmp_path / "plain")).data.sha256 == plain.sha256


def test_damaged_mnist_files_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, packed=True)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    for spoilt in (whole[:-20], whole[:60] + b"x" * 40 + whole[100:], b"no gzip"):
        images.write_bytes(spoilt)
        with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz is damaged.*allowed is"):
            files_task(path=str(tmp_path))
    images.write_bytes(whole)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(49))))
    with pytest.raises(ValueError, match=r"\(50, 4, 4\) and train-labels of shape \(49,\)"):
        files_task(path=str(tmp_path))


def test_cifar_binary_is_read_and_pickles_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(256, size=(60, 3073), dtype=np.uint8)
    rows[:, 0] = np.arange(60) % 2
    (tmp_path / "data_batch_1.bin").write_bytes(rows[:40].tobytes())
    (tmp_path / "test_batch.bin").write_bytes(rows[40:].tobytes())
    task = files_task(path=str(tmp_path), height=32, width=32)
    colour = rows[40, 1:].reshape(3, 32, 32).transpose(1, 2, 0)
    by_pillow = np.asarray(Image.fromarray(np.ascontiguousarray(colour)).convert("L"))
    assert np.array_equal(task.images.pixels["test"][0], by_pillow)
    (tmp_path / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match="no whole records"):
        files_task(path=str(tmp_path), height=32, width=32)
    (tmp_path / "data_batch_1").touch()
    with pytest.raises(ValueError, match="pickled files, which are refused"):
        files_task(path=str(tmp_path))


def test_grey_is_made_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    planes = np.random.default_rng(0).integers(256, size=(23, 3, 5, 4), dtype=np.uint8)
    whole = to_grey(planes)
    monkeypatch.setattr(image_sources, "GREY_IMAGES", 4)
    assert np.array_equal(to_grey(planes), whole)
    for image, grey in zip(planes, whole, strict=True):
        pillow = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).convert("L")
        assert np.array_equal(grey, np.asarray(pillow))


def test_grey_of_grey_is_itself() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    assert np.array_equal(to_grey(ramp)[0], ramp[0, 0])


def test_hub_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for seed, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        write_images(tmp_path / "set" / name, 15, seed)
    task = files_task(hub=str(tmp_path / "set"))
    assert task.data.id.startswith("hub-set-")
    assert task.data.sizes["test"] == 30
    local = files_task(path=str(tmp_path / "set"))
    assert local.images.pixels["test"].sum() == task.images.pixels["test"].sum()


def test_unsupported_images_are_refused(tmp_path: Path) -> None:
    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(ValueError, match=match) as error:
            files_task(**changes)
        assert "allowed" in str(error.value) or "give one" in str(error.value)

    refused("task.path=null")
    refused("exclude each other", path="a", hub="b")
    refused("task.levels=1 ", path=str(tmp_path), levels=1)
    refused("is not a folder", path=str(tmp_path / "none"))
    refused("0 class folders", path=str(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    refused("holds no images", path=str(tmp_path))
    (tmp_path / "a" / "1.png").write_bytes(b"no image")
    refused("unreadable", path=str(tmp_path))
    (tmp_path / "a" / "1.png").unlink()
    write_images(tmp_path / "sizes" / "a", 12, 0)
    write_images(tmp_path / "sizes" / "b", 12, 1, size=(5, 4))
    refused("of 2 sizes", path=str(tmp_path / "sizes"))
    write_images(tmp_path / "few" / "a", 3, 0)
    write_images(tmp_path / "few" / "b", 3, 1)
    refused("too few images", path=str(tmp_path / "few"))
    write_images(tmp_path / "good" / "a", 12, 0)
    write_images(tmp_path / "good" / "b", 12, 1)
    refused("task.height=5", path=str(tmp_path / "good"), height=5)
    refused("task.n_classes=3", path=str(tmp_path / "good"), n_classes=3)
