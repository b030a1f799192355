"""Labelled images that the user names: a folder, MNIST's or CIFAR-10's files, or a hub data set.

Folders may hold one folder a class, or `train/` and `test/` (and `validation/`) with one folder a
class each. Pickled files are refused, for loading them runs their code.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from bench.tasks.base import SPLITS
from bench.tasks.hub import load_hub
from bench.tasks.imageset import ImageSet, split_by_hash

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".webp"}
ALLOWED = (
    "a folder with one folder of images a class, with train/ and test/ of that form, with MNIST's "
    "*-ubyte files, or with CIFAR-10's binary *.bin files"
)
Arrays = tuple[np.ndarray, np.ndarray]
GREY_IMAGES = 1024  # made grey at once


def load_images(path: str | None, hub: str | None, hub_config: str | None, levels: int) -> ImageSet:
    """The images that the configuration means, in `levels` grey levels."""
    if not 2 <= levels <= 256:
        raise ValueError(f"task.levels={levels} is not allowed; allowed are 2 to 256")
    if path and hub:
        raise ValueError(f"task.path={path} and task.hub={hub} exclude each other; give one")
    if path:
        name, found = f"path-{Path(path).name}", read_folder(path)
    elif hub:
        name, found = f"hub-{Path(hub).name}", read_hub(hub, hub_config)
    else:
        raise ValueError(
            f"task.path=null: this task brings no images of its own; allowed is task.path={ALLOWED}"
            f", or task.hub=NAME of a data set with images"
        )
    pixels, labels, split = three_splits(found)
    n_classes = 1 + max(int(y.max()) for y in labels.values())
    grey = {s: (p.astype(np.uint16) * levels // 256).astype(np.uint8) for s, p in pixels.items()}
    notes = {"split": split, "colour": "grey (ITU-R 601)"}
    return ImageSet(name, grey, labels, levels, n_classes, notes)


def three_splits(
    found: dict[str, Arrays],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]:
    """Train, validation and test; what is missing is taken from train by the hash of the image."""
    pixels = {s: p for s, (p, _) in found.items()}
    labels = {s: y for s, (_, y) in found.items()}
    if any(y.min() < 0 for y in labels.values() if len(y)):
        raise ValueError("task.hub has images without a label; allowed are labelled images")
    missing = [s for s in ("validation", "test") if s not in found]
    if missing:
        tenth = np.bincount(labels["train"]) // 10
        none = np.zeros_like(tenth)
        cut_pixels, cut_labels = split_by_hash(
            pixels["train"],
            labels["train"],
            tenth if "validation" in missing else none,
            tenth if "test" in missing else none,
        )
        for s in ("train", *missing):
            pixels[s], labels[s] = cut_pixels[s], cut_labels[s]
    if not all(len(labels[s]) for s in SPLITS):
        raise ValueError(
            "task.path or task.hub has too few images for three splits; allowed are at least "
            "10 images a class"
        )
    taken = f"; a tenth of each class of train, by hash, is {' and '.join(missing)}"
    return pixels, labels, "the data set's own" + (taken if missing else "")


def read_folder(path: str) -> dict[str, Arrays]:
    """Images and labels of a local folder, by split."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"task.path={path} is not a folder; allowed is {ALLOWED}")
    try:
        if (root / "data_batch_1").exists():
            raise ValueError(
                f"task.path={path} holds CIFAR-10's pickled files, which are refused because "
                f"loading them runs their code; allowed is CIFAR-10's binary version"
            )
        if list(root.glob("train-images*ubyte*")):
            return read_idx(root)
        if (root / "data_batch_1.bin").exists():
            return read_cifar(root)
        if (root / "train").is_dir():
            names = class_names(root / "train", path)
            return {s: read_classes(root / s, names, path) for s in SPLITS if (root / s).is_dir()}
        return {"train": read_classes(root, class_names(root, path), path)}
    except OSError as error:
        raise ValueError(f"task.path={path} is unreadable ({error}); allowed is {ALLOWED}") from (
            error
        )


def class_names(root: Path, path: str) -> list[str]:
    """Names of the folders of `root`, sorted: the classes."""
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise ValueError(
            f"task.path={path} has {len(names)} class folders in {root}; allowed is {ALLOWED}"
        )
    return names


def read_classes(root: Path, names: list[str], path: str) -> Arrays:
    """Grey images of one folder a class."""
    from PIL import Image

    pixels: list[np.ndarray] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        for file in sorted((root / name).glob("*")):
            if file.suffix.lower() in SUFFIXES:
                with Image.open(file) as image:
                    pixels.append(np.asarray(image.convert("L")))
                labels.append(label)
    shapes = sorted({p.shape for p in pixels})
    if len(shapes) != 1:
        what = f"images of {len(shapes)} sizes, such as {shapes[:2]}" if shapes else "no images"
        raise ValueError(f"task.path={path} holds {what} in {root}; allowed are images of one size")
    return np.stack(pixels), np.array(labels)


def read_idx(root: Path) -> dict[str, Arrays]:
    """MNIST's format: a header of big-endian sizes, then bytes."""

    def array(pattern: str) -> np.ndarray:
        files = sorted(root.glob(pattern))
        if not files:
            raise ValueError(f"task.path={root} lacks {pattern}; allowed is {ALLOWED}")
        data = files[0].read_bytes()
        try:
            data = gzip.decompress(data) if files[0].suffix == ".gz" else data
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"task.path={root}: {files[0].name} is damaged ({error}); "
                f"allowed is the file as it was published, packed or not"
            ) from error
        rank = data[3] if len(data) > 3 else 0
        header = 4 + 4 * rank
        shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, header, 4)]
        if not rank or data[2] != 8 or len(data) != header + math.prod(shape):
            raise ValueError(f"task.path={root}: {files[0].name} is no IDX file of bytes")
        return np.frombuffer(data, np.uint8, offset=header).reshape(shape)

    found = {}
    for split, name in (("train", "train"), ("test", "t10k")):
        pixels, labels = array(f"{name}-images*ubyte*"), array(f"{name}-labels*ubyte*")
        if pixels.ndim != 3 or labels.shape != pixels.shape[:1]:
            raise ValueError(
                f"task.path={root}: {name}-images of shape {pixels.shape} and {name}-labels of "
                f"shape {labels.shape} do not belong together; allowed are images (N, H, W) and N "
                f"labels"
            )
        found[split] = (pixels, labels.astype(np.int64))
    return found


def read_cifar(root: Path) -> dict[str, Arrays]:
    """CIFAR-10's binary format: a label byte, then three planes of 32×32."""

    def arrays(pattern: str) -> Arrays:
        files = sorted(root.glob(pattern))
        data = b"".join(file.read_bytes() for file in files)
        if not data or len(data) % 3073:
            raise ValueError(f"task.path={root}: {pattern} holds no whole records of 3,073 bytes")
        rows = np.frombuffer(data, np.uint8).reshape(-1, 3073)
        return to_grey(rows[:, 1:].reshape(-1, 3, 32, 32)), rows[:, 0].astype(np.int64)

    return {"train": arrays("data_batch_*.bin"), "test": arrays("test_batch.bin")}


def to_grey(planes: np.ndarray) -> np.ndarray:
    """(N, 3, H, W) -> (N, H, W), with the integer weights that Pillow uses for mode L."""
    grey = np.empty((len(planes), *planes.shape[2:]), dtype=np.uint8)
    for first in range(0, len(planes), GREY_IMAGES):  # wide numbers take eight times the memory
        part = planes[first : first + GREY_IMAGES].astype(np.uint32)
        weighed = part[:, 0] * 19595 + part[:, 1] * 38470 + part[:, 2] * 7471 + 0x8000
        grey[first : first + GREY_IMAGES] = weighed >> 16
    return grey


def read_hub(hub: str, config: str | None) -> dict[str, Arrays]:
    """Images and labels of a data set, its columns found by their types."""
    found = load_hub(hub, config)
    result = {}
    for split, rows in found.items():
        if split not in SPLITS:
            continue
        kinds = {name: type(feature).__name__ for name, feature in rows.features.items()}
        images = [name for name, kind in kinds.items() if kind == "Image"]
        labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
        if not images or not labels:
            raise ValueError(
                f"task.hub={hub} has the columns {kinds}; allowed is a data set with a column of "
                f"type Image and one of type ClassLabel"
            )
        arrays = [np.asarray(image.convert("L")) for image in rows[images[0]]]
        if len({a.shape for a in arrays}) != 1:
            raise ValueError(f"task.hub={hub} holds images of several sizes; allowed is one size")
        result[split] = (np.stack(arrays), np.array(rows[labels[0]]))
    if "train" not in result:
        raise ValueError(
            f"task.hub={hub} has the splits {', '.join(found)}; allowed is one with train"
        )
    return result
