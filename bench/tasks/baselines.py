"""Plain rivals that ground every number: fitted on train, scored on the items the models see.

N items, T bytes of a window, C classes, L grey levels, H and W image sides.
"""

import lzma
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.tasks.base import Baseline, Quality, quality
from bench.tasks.ngram import NGram

NEIGHBOURS = 3
# Beyond this many training images, logistic regression would outlast the models it grounds.
FIT_IMAGES = 10_000
# Added to every count of a pixel's grey levels; the best of these on validation is taken.
SMOOTHING = (0.01, 0.03, 0.1, 0.3, 1.0)


def timed(name: str, description: str, score: Callable[[], Quality]) -> Baseline:
    """Score a rival and keep the seconds it took, fitting included."""
    start = time.perf_counter()
    result = score()
    return Baseline(name, description, result, time.perf_counter() - start)


def text_baselines(train: np.ndarray, windows: np.ndarray) -> list[Baseline]:
    """Uniform, order-0, bigram and 5-gram on the same windows as the models, and lzma."""

    def ngram(order: int) -> Quality:
        per_window = NGram(train, order).bits(windows).mean(1)
        notes = {"windows": "history starts empty in each window, as for the models"}
        return quality("bits_per_byte", per_window, better="lower", bound=False, notes=notes)

    def uniform() -> Quality:
        return quality("bits_per_byte", np.full(len(windows), 8.0), better="lower", bound=False)

    return [
        timed("uniform", "every byte equally likely", uniform),
        timed("order-0", "frequency of bytes in train", lambda: ngram(1)),
        timed("bigram", "byte given the one before, Kneser-Ney", lambda: ngram(2)),
        timed("5-gram", "byte given the four before, Kneser-Ney", lambda: ngram(5)),
        timed("lzma", "size of train plus test less size of train", lambda: packed(train, windows)),
    ]


def packed(train: np.ndarray, windows: np.ndarray) -> Quality:
    """What test adds to the compressed size of train, in bits per byte."""

    def size(data: bytes) -> int:
        # A dictionary as long as the data: lzma may refer to all of train.
        dictionary = min(max(len(data), 1 << 16), 1 << 28)
        chain = [
            {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}
        ]
        return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=chain))

    head, tail = train.tobytes(), windows.tobytes()
    bits = 8 * (size(head + tail) - size(head)) / len(tail)
    notes = {"windows": "sees all bytes before, across windows; one figure for the whole split"}
    return quality("bits_per_byte", np.array([bits]), better="lower", bound=False, notes=notes)


def class_scores(log_p: np.ndarray, labels: np.ndarray, notes: dict[str, str]) -> Quality:
    """Accuracy and negative log-likelihood from log-probabilities (N, C)."""
    nll = -log_p[np.arange(len(labels)), labels]
    return quality(
        "accuracy",
        (log_p.argmax(1) == labels).astype(np.float64),
        better="higher",
        bound=False,
        secondary={"nll": float(nll.mean())},
        notes={"forwards": "1"} | notes,
    )


def classify_baselines(
    pixels: dict[str, np.ndarray], labels: dict[str, np.ndarray], levels: int, n_classes: int
) -> list[Baseline]:
    """Most frequent class, logistic regression and nearest neighbours on flat pixels."""
    fit = np.linspace(0, len(labels["train"]) - 1, min(len(labels["train"]), FIT_IMAGES))
    chosen = fit.round().astype(np.int64)
    x = {s: p.reshape(len(p), -1).astype(np.float64) / (levels - 1) for s, p in pixels.items()}
    train_x, train_y = x["train"][chosen], labels["train"][chosen]
    test_x, test_y = x["test"], labels["test"]
    flat = {"readout": "plain", "view": "flat pixels"}

    def frequent() -> Quality:
        share = np.bincount(labels["train"], minlength=n_classes) + 1.0
        log_p = np.log(share / share.sum())
        return class_scores(np.tile(log_p, (len(test_y), 1)), test_y, flat)

    def every_class(model: Any, p: np.ndarray) -> np.ndarray:
        """Columns of the classes that train holds, spread over all classes."""
        full = np.zeros((len(p), n_classes))
        full[:, model.classes_] = p
        return full

    def logistic() -> Quality:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(max_iter=1000).fit(train_x, train_y)
        p = every_class(model, model.predict_proba(test_x))
        return class_scores(np.log(np.maximum(p, 1e-300)), test_y, flat)

    def neighbours() -> Quality:
        from sklearn.neighbors import KNeighborsClassifier

        model = KNeighborsClassifier(n_neighbors=NEIGHBOURS).fit(train_x, train_y)
        votes = every_class(model, model.predict_proba(test_x)) * NEIGHBOURS
        # One vote spread over all classes, else a class without a neighbour had probability 0.
        log_p = np.log((votes + 1 / n_classes) / (NEIGHBOURS + 1))
        return class_scores(log_p, test_y, flat | {"nll": "one vote spread over all classes"})

    cap = f", {len(chosen)} training images" if len(chosen) < len(labels["train"]) else ""
    return [
        timed("most frequent class", "the class with most training images", frequent),
        timed("logistic regression", f"scikit-learn, L2, C=1{cap}", logistic),
        timed(
            "nearest neighbours", f"scikit-learn, {NEIGHBOURS} nearest by pixels{cap}", neighbours
        ),
    ]


class PixelMarginal:
    """p(pixel | class), every pixel on its own."""

    def __init__(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        *,
        levels: int,
        n_classes: int,
        smoothing: float,
    ) -> None:
        counts = np.full((n_classes, levels, *pixels.shape[1:]), smoothing)  # (C, L, H, W)
        for level in range(levels):
            np.add.at(counts[:, level], labels, pixels == level)
        self.p = counts / counts.sum(1, keepdims=True)

    def bits(self, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Bits per pixel of each image, (N, H, W) -> (N,)."""
        index = pixels[:, None].astype(np.int64)  # (N, 1, H, W)
        p = np.take_along_axis(self.p[labels], index, axis=1)
        return -np.log2(p).mean((1, 2, 3))

    def sample(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One image of each class in `labels`, (N,) -> (N, H, W)."""
        cumulative = self.p[labels].cumsum(1)  # (N, L, H, W)
        u = rng.random((len(labels), 1, *self.p.shape[2:]))
        return np.minimum((u > cumulative).sum(1), self.p.shape[1] - 1)


def generate_baselines(
    pixels: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    levels: int,
    n_classes: int,
    sample_quality: Callable[[np.ndarray], dict[str, float]],
    classes: np.ndarray,
) -> list[Baseline]:
    """Uniform grey levels, and the marginal of each pixel given the class.

    `sample_quality` scores images drawn for `classes`.
    """
    rng = np.random.default_rng(0)
    shape = pixels["test"].shape

    def uniform() -> Quality:
        drawn = rng.integers(levels, size=(len(classes), *shape[1:]))
        items = np.full(shape[0], math.log2(levels))
        return quality(
            "bits_per_dim", items, better="lower", bound=False, secondary=sample_quality(drawn)
        )

    def marginal() -> Quality:
        fits = [
            PixelMarginal(
                pixels["train"],
                labels["train"],
                levels=levels,
                n_classes=n_classes,
                smoothing=smoothing,
            )
            for smoothing in SMOOTHING
        ]
        on = [f.bits(pixels["validation"], labels["validation"]).mean() for f in fits]
        best = fits[int(np.argmin(on))]
        return quality(
            "bits_per_dim",
            best.bits(pixels["test"], labels["test"]),
            better="lower",
            bound=False,
            secondary=sample_quality(best.sample(classes, rng)),
            notes={"smoothing": f"{SMOOTHING[int(np.argmin(on))]:g}, best on validation"},
        )

    return [
        timed("uniform", "every grey level equally likely", uniform),
        timed("pixel marginal", "each pixel's grey levels given the class", marginal),
    ]
