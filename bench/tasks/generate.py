"""Class-conditional generation of the 8×8 digits: bits per dimension, and quality of samples.

B batch, N images of a split, n samples, C classes, H and W sides.
"""

import math
from typing import Any

import numpy as np
import torch

from bench.tasks.base import Baseline, Batch, Quality, check_split, pick, quality, scoring
from bench.tasks.images import ImageTask
from bench.tasks.imageset import digits

SAMPLE_SEED = 0


class GenerateTask(ImageTask):
    """p(pixels | class) of the digits at 17 grey levels."""

    kind = "generate"

    def __init__(self, *, levels: int, n_classes: int, height: int, width: int) -> None:
        super().__init__(digits(), levels=levels, n_classes=n_classes, height=height, width=width)
        counts = np.bincount(self.images.labels["test"], minlength=n_classes)
        # Both sides hold equally many images of each class, as many as test has of the rarest.
        self.per_class = int(counts.min())
        self.classes = np.tile(np.arange(n_classes), self.per_class)  # (n,)

    def as_batch(self, split: str, index: np.ndarray) -> Batch:
        """Images with their class as the condition; the labels are the pixels themselves."""
        pixels, classes = self.select(split, index)
        return {"pixels": pixels, "condition": classes, "labels": pixels}

    def evaluate(
        self,
        model: Any,
        split: str,
        device: torch.device | str,
        max_items: int | None = None,
        full: bool = False,
    ) -> Quality:
        """Bits per dimension; `full` adds samples, their quality and the readout log p(x|y)."""
        check_split(split)
        chosen = pick(len(self.images.labels[split]), max_items)
        pixels, classes = self.select(split, chosen)
        secondary: dict[str, float] = {}
        notes: dict[str, str] = {}
        artefacts: dict[str, np.ndarray] = {}
        bound, forwards = False, 1

        def nats(y: torch.Tensor) -> np.ndarray:
            """log p(pixels | y), (N,)."""
            nonlocal bound, forwards
            parts = []
            for start in range(0, len(pixels), self.eval_batch):
                part = slice(start, start + self.eval_batch)
                score = model.log_prob(pixels[part].to(device), y[part].to(device))
                bound, forwards = score.bound, score.forwards
                parts.append(score.nats.double().cpu().numpy())
            return np.concatenate(parts)

        with scoring(model, device) as device:
            items = -nats(classes) / (math.log(2) * self.symbols_per_item)
            notes["forwards"] = f"{forwards} an image"
            if full and not bound:
                of_class = [nats(torch.full_like(classes, c)) for c in range(self.n_classes)]
                readout, text = log_p_readout(np.stack(of_class, 1), classes.numpy(), forwards)
                secondary |= readout
                notes["accuracy_log_p"] = text
            if full:
                generator = torch.Generator(device=device).manual_seed(SAMPLE_SEED)
                condition = torch.from_numpy(self.classes).to(device)
                drawn = model.sample(len(condition), condition=condition, generator=generator)
                samples = self.checked(drawn)
                secondary |= self.sample_quality(samples)
                notes["samples"] = self.sample_note()
                artefacts = {"samples": samples.astype(np.uint8), "classes": self.classes}
        return quality(
            "bits_per_dim",
            items,
            better="lower",
            bound=bound,
            secondary=secondary,
            notes=notes,
            artefacts=artefacts,
        )

    def checked(self, drawn: torch.Tensor) -> np.ndarray:
        """Samples as an array, or why they are no images of this task."""
        samples = drawn.cpu().numpy()
        wanted = (len(self.classes), *self.images.pixels["test"].shape[1:])
        if samples.shape != wanted or not np.issubdtype(samples.dtype, np.integer):
            raise ValueError(
                f"model.sample returned {samples.dtype}{samples.shape}; allowed are integers "
                f"of shape {wanted}"
            )
        if samples.min() < 0 or samples.max() >= self.levels:
            raise ValueError(
                f"model.sample returned grey levels from {samples.min()} to {samples.max()}; "
                f"allowed are 0 to {self.levels - 1}"
            )
        return samples

    def balanced(self, split: str) -> np.ndarray:
        """As many images of each class of a split as there are samples: the first of each."""
        labels = self.images.labels[split]
        first = [np.flatnonzero(labels == c)[: self.per_class] for c in range(self.n_classes)]
        return self.images.pixels[split][np.concatenate(first)]

    def sample_quality(self, samples: np.ndarray) -> dict[str, float]:
        """Scores of samples against test, and the floor: train against test at the same count."""
        from bench.tasks.encoder import features
        from bench.tasks.sample_quality import compare

        test = features(self.balanced("test"))
        scores = compare(test, features(samples))
        floors = compare(test, features(self.balanced("train")))
        return scores | {f"{name}_floor": value for name, value in floors.items()}

    def sample_note(self) -> str:
        """What stands on both sides of the comparison, for the record."""
        from bench.tasks.encoder import weights_sha256

        return (
            f"{len(self.classes)} samples ({self.per_class} a class, seed {SAMPLE_SEED}) against "
            f"as many of test; floor: as many of train against test; features of "
            f"digits_encoder.safetensors {weights_sha256()[:16]}"
        )

    def baselines(self) -> list[Baseline]:
        """Uniform grey levels and the per-pixel marginal given the class."""
        from bench.tasks.baselines import generate_baselines

        return generate_baselines(
            self.images.pixels,
            self.images.labels,
            self.levels,
            self.n_classes,
            self.sample_quality,
            self.classes,
        )


def log_p_readout(
    log_p: np.ndarray, classes: np.ndarray, forwards: int
) -> tuple[dict[str, float], str]:
    """Classification by argmax_y log p(x|y): scores from (N, C) nats, and the note."""
    shifted = log_p - log_p.max(1, keepdims=True)
    log_posterior = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    scores = {
        "accuracy_log_p": float((log_p.argmax(1) == classes).mean()),
        "nll_log_p": float(-log_posterior[np.arange(len(classes)), classes].mean()),
    }
    return scores, (
        f"argmax over classes of log p(x|y), nll of the softmax of unscaled log-likelihoods, "
        f"{forwards * log_p.shape[1]} forwards an image"
    )
