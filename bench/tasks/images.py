"""Classification of labelled images, scored by accuracy and negative log-likelihood.

The images are the user's own: an image folder, MNIST's or CIFAR-10's files, or a data set of the
Hugging Face hub. Colour becomes grey (ITU-R 601), as in Long Range Arena's image task
(arXiv:2011.04006), because every family reads grey levels in raster order.

B batch, N images of a split, C classes, H and W sides.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.tasks.base import (
    Baseline,
    Batch,
    DataId,
    Quality,
    check_positive,
    check_split,
    pick,
    quality,
    scoring,
    shuffled,
)
from bench.tasks.imageset import ImageSet

EVAL_BATCH = 256  # images of 8×8; larger ones in proportion


def require_images(
    found: ImageSet, *, levels: int, n_classes: int, height: int, width: int
) -> None:
    """Refuse a configuration that does not describe the images that were found."""
    actual = {
        "levels": found.levels,
        "n_classes": found.n_classes,
        "height": found.pixels["train"].shape[1],
        "width": found.pixels["train"].shape[2],
    }
    given = {"levels": levels, "n_classes": n_classes, "height": height, "width": width}
    for key, value in given.items():
        if value != actual[key]:
            raise ValueError(
                f"task.{key}={value} does not fit the images of {found.name}; "
                f"allowed is {actual[key]}"
            )


class ImageTask:
    """Classification of an `ImageSet`; the tasks that load one derive from it."""

    kind = "classify"
    unit = "images"

    def __init__(
        self, found: ImageSet, *, levels: int, n_classes: int, height: int, width: int
    ) -> None:
        require_images(found, levels=levels, n_classes=n_classes, height=height, width=width)
        self.images = found
        self.levels, self.n_classes = levels, n_classes
        self.symbols_per_item = height * width
        self.eval_batch = max(1, EVAL_BATCH * 64 // self.symbols_per_item)
        sha256 = found.sha256
        self.data = DataId(
            id=f"{found.name}-{sha256[:8]}",
            sha256=sha256,
            sizes={s: len(y) for s, y in found.labels.items()},
            notes=found.notes | {"items": f"images of {height}×{width} at {levels} grey levels"},
        )

    def as_batch(self, split: str, index: np.ndarray) -> Batch:
        """Images as keyword arguments of the model's forward."""
        pixels, labels = self.select(split, index)
        return {"pixels": pixels, "labels": labels}

    def select(self, split: str, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pixels (B, H, W) and classes (B,) as int64."""
        pixels = torch.from_numpy(self.images.pixels[split][index].astype(np.int64))
        return pixels, torch.from_numpy(self.images.labels[split][index].astype(np.int64))

    def batches(self, split: str, batch_size: int, seed: int) -> Iterator[Batch]:
        """Shuffled images without end, each once an epoch."""
        check_split(split)
        check_positive("batch_size", batch_size)
        count = len(self.images.labels[split])
        order = shuffled(count, batch_size, np.random.default_rng(seed))
        return (self.as_batch(split, index) for index in order)

    def example(self, batch_size: int, length: int | None = None) -> Batch:
        """The first images of train, repeated where they do not suffice."""
        check_positive("batch_size", batch_size)
        if length not in (None, self.symbols_per_item):
            raise ValueError(
                f"length={length} is not that of an image; allowed is {self.symbols_per_item}"
            )
        return self.as_batch("train", np.arange(batch_size) % len(self.images.labels["train"]))

    def evaluate(
        self,
        model: Any,
        split: str,
        device: torch.device | str,
        max_items: int | None = None,
        full: bool = False,
    ) -> Quality:
        """Accuracy of `split`, and the negative log-likelihood in nats an image as secondary."""
        check_split(split)
        chosen = pick(len(self.images.labels[split]), max_items)
        scores = []
        with scoring(model, device) as device:
            for start in range(0, len(chosen), self.eval_batch):
                pixels, _ = self.select(split, chosen[start : start + self.eval_batch])
                scores.append(model.classify(pixels.to(device)).double().cpu())
        return class_quality(torch.cat(scores), self.images.labels[split][chosen], model)

    def baselines(self) -> list[Baseline]:
        """Most frequent class, logistic regression and nearest neighbours."""
        from bench.tasks.baselines import classify_baselines

        return classify_baselines(
            self.images.pixels, self.images.labels, self.levels, self.n_classes
        )


def class_quality(scores: Tensor, labels: np.ndarray, model: Any) -> Quality:
    """Accuracy and likelihood from unnormalised log-probabilities (N, C)."""
    bound = model.readout == "bound"
    notes = {
        "readout": str(model.readout),
        "view": str(model.view),
        "forwards": str(model.forwards_per_image),
    }
    if bound:
        notes["nll"] = "softmax of the bounds, itself neither a bound nor exact"
    target = torch.from_numpy(labels.astype(np.int64))
    nll = torch.nn.functional.cross_entropy(scores, target)
    # A score that is no number makes the figure none: argmax would still name a class.
    hits = (scores.argmax(1) == target).double()
    hits[~scores.isfinite().all(1)] = torch.nan
    return quality(
        "accuracy",
        hits.numpy(),
        better="higher",
        bound=False,
        secondary={"nll": float(nll)},
        notes=notes,
    )


class ImageFilesTask(ImageTask):
    """Classification of images that the user names by `path` or `hub`."""

    def __init__(
        self,
        *,
        path: str | None,
        hub: str | None,
        hub_config: str | None,
        levels: int,
        n_classes: int,
        height: int,
        width: int,
    ) -> None:
        from bench.tasks.image_sources import load_images

        found = load_images(path, hub, hub_config, levels)
        super().__init__(found, levels=levels, n_classes=n_classes, height=height, width=width)
