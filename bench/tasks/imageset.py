"""Labelled grey-level images with fixed splits; scikit-learn's 8×8 digits are the built-in set.

N images of a split, H and W sides, C classes.
"""

import gzip
import hashlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.tasks.base import SPLITS, digest

HELD_OUT = 18  # images of each digit in validation and in test: 10 % of the 174 to 183 there are


@dataclass(frozen=True)
class ImageSet:
    """Pixels (N, H, W) as uint8 grey levels in [0, levels) and labels (N,), per split."""

    name: str
    pixels: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    levels: int
    n_classes: int
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of all pixels and labels, by split."""
        return digest(
            {f"{s} pixels": self.pixels[s].astype(np.uint8) for s in SPLITS}
            | {f"{s} labels": self.labels[s].astype("<i8") for s in SPLITS}
        )


def hash_order(pixels: np.ndarray) -> np.ndarray:
    """Indices in the order of the hashes of the images: random, yet the same everywhere."""
    keys = [hashlib.sha256(image.astype(np.uint8).tobytes()).digest() for image in pixels]
    return np.array(sorted(range(len(keys)), key=lambda i: (keys[i], i)), dtype=np.int64)


def ranks_within_class(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Place of every image among those of its class, walked in `order`."""
    ranks = np.empty(len(labels), dtype=np.int64)
    seen: dict[int, int] = {}
    for index in order:
        label = int(labels[index])
        ranks[index] = seen.get(label, 0)
        seen[label] = ranks[index] + 1
    return ranks


def split_by_hash(
    pixels: np.ndarray, labels: np.ndarray, validation: np.ndarray, test: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Within each class, in hash order: first `test[class]` images, then validation, then train.

    Each split keeps the hash order, so that its classes are mixed.
    """
    order = hash_order(pixels)
    ranks = ranks_within_class(labels, order)
    held = {
        "test": ranks < test[labels],
        "validation": (ranks >= test[labels]) & (ranks < (test + validation)[labels]),
    }
    held["train"] = ~(held["test"] | held["validation"])
    index = {s: order[held[s][order]] for s in SPLITS}
    return {s: pixels[i] for s, i in index.items()}, {s: labels[i] for s, i in index.items()}


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 digits as shipped with scikit-learn: levels 0..16 (1797, 8, 8), labels (1797,).

    Read from its file, for importing `sklearn.datasets` takes over a second and every cell is a
    process of its own.
    """
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8).astype(np.uint8), table[:, -1].astype(np.int64)


def digits() -> ImageSet:
    """The digits, split by rule: stratified, by hash of the image, 18 of each class held out."""
    pixels, labels = read_digits()
    held = np.full(10, HELD_OUT)
    split_pixels, split_labels = split_by_hash(pixels, labels, held, held)
    notes = {
        "split": f"by hash of the image, {HELD_OUT} of each class for validation and for test",
        "source": "scikit-learn, UCI optical digits (test part): writers stand in all splits",
    }
    return ImageSet("digits", split_pixels, split_labels, 17, 10, notes)
