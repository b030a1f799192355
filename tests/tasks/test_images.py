"""Digits and generation: the split, what known predictors score, and what samples are worth."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from bench.tasks.base import Task
from bench.tasks.digits import DigitsTask
from bench.tasks.encoder import WEIGHTS, features, load_encoder, weights_sha256
from bench.tasks.generate import GenerateTask
from bench.tasks.imageset import digits, read_digits
from tests.tasks.fakes import FakeClassifier, FakeGenerator, text_task

KEYS = {"levels": 17, "n_classes": 10, "height": 8, "width": 8}


@pytest.fixture(scope="module")
def classify() -> DigitsTask:
    return DigitsTask(**KEYS)


@pytest.fixture(scope="module")
def generate() -> GenerateTask:
    return GenerateTask(**KEYS)


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = read_digits()
    official = load_digits()
    assert np.array_equal(pixels, official.images.astype(int))
    assert np.array_equal(labels, official.target)


def test_split_is_fixed_stratified_and_disjoint(classify: DigitsTask) -> None:
    images = digits()
    assert classify.data.sizes == {"train": 1437, "validation": 180, "test": 180}
    for split in ("validation", "test"):
        assert np.bincount(images.labels[split]).tolist() == [18] * 10
    sets = [{p.tobytes() for p in images.pixels[s]} for s in ("train", "validation", "test")]
    assert sum(map(len, sets)) == 1797 == len(set.union(*sets))
    # The rule is part of the task's definition: another split is another version.
    assert classify.data.id == "digits-" + classify.data.sha256[:8] == "digits-8215c0ac"


def test_tasks_offer_the_protocol(classify: DigitsTask, generate: GenerateTask) -> None:
    for task in (classify, generate, text_task()):
        assert isinstance(task, Task)
    assert classify.symbols_per_item == generate.symbols_per_item == 64
    batch = classify.example(3)
    assert set(batch) == {"pixels", "labels"}
    assert batch["pixels"].shape == (3, 8, 8)
    batch = generate.example(2000, 64)
    assert set(batch) == {"pixels", "condition", "labels"}
    assert torch.equal(batch["pixels"], batch["labels"])
    assert all(value.dtype == torch.int64 for value in batch.values())
    with pytest.raises(ValueError, match="length=65"):
        classify.example(3, 65)


def test_batches_show_each_image_once_an_epoch(classify: DigitsTask) -> None:
    stream = classify.batches("test", 7, seed=0)
    again = classify.batches("test", 7, seed=0)
    batches = [next(stream) for _ in range(180)]
    assert all(torch.equal(b["pixels"], next(again)["pixels"]) for b in batches)
    rows = torch.cat([b["pixels"] for b in batches]).flatten(1)
    for epoch in rows.split(180):
        assert len(epoch.unique(dim=0)) == 180


def test_classifiers_score_what_theory_says(classify: DigitsTask) -> None:
    table = {
        p.tobytes(): int(y)
        for p, y in zip(
            classify.images.pixels["test"].astype(np.int64),
            classify.images.labels["test"],
            strict=True,
        )
    }

    def known(pixels: torch.Tensor) -> torch.Tensor:
        labels = torch.tensor([table[p.numpy().tobytes()] for p in pixels])
        return 1000 * torch.nn.functional.one_hot(labels, 10).float()

    perfect = classify.evaluate(FakeClassifier(known), "test", "cpu")
    assert (perfect.metric, perfect.value, perfect.secondary["nll"]) == ("accuracy", 1.0, 0.0)
    assert perfect.notes == {"readout": "head", "view": "2-D", "forwards": "1"}
    always = torch.nn.functional.one_hot(torch.tensor(3), 10).float()
    constant = classify.evaluate(FakeClassifier(lambda p: always.expand(len(p), 10)), "test", "cpu")
    assert constant.value == pytest.approx(0.1)
    assert constant.stderr == pytest.approx(math.sqrt(0.1 * 0.9 / 179))
    flat = classify.evaluate(FakeClassifier(lambda p: torch.zeros(len(p), 10)), "test", "cpu")
    assert flat.secondary["nll"] == pytest.approx(math.log(10))
    assert classify.evaluate(FakeClassifier(known), "test", "cpu", max_items=20).n_items == 20


def test_classifier_without_numbers_has_no_accuracy(classify: DigitsTask) -> None:
    broken = FakeClassifier(lambda p: torch.full((len(p), 10), torch.nan))
    assert math.isnan(classify.evaluate(broken, "test", "cpu").value)


def test_generators_score_what_theory_says(generate: GenerateTask) -> None:
    uniform = FakeGenerator(lambda p, y: torch.full((len(p),), -64 * math.log(17)))
    result = generate.evaluate(uniform, "test", "cpu")
    assert result.metric == "bits_per_dim"
    assert result.value == pytest.approx(math.log2(17))
    assert not result.bound
    assert not result.secondary
    perfect = FakeGenerator(lambda p, y: torch.zeros(len(p)), bound=True)
    result = generate.evaluate(perfect, "test", "cpu")
    assert result.value == 0.0
    assert result.bound


def of_train(task: GenerateTask) -> Any:
    def sample(n: int, condition: torch.Tensor) -> torch.Tensor:
        labels = task.images.labels["train"]
        index = [np.flatnonzero(labels == int(c))[i // 10 + 30] for i, c in enumerate(condition)]
        return torch.from_numpy(task.images.pixels["train"][index].astype(np.int64))

    return sample


def test_full_evaluation_adds_readout_samples_and_floors(generate: GenerateTask) -> None:
    means = torch.from_numpy(
        np.stack(
            [
                generate.images.pixels["train"][generate.images.labels["train"] == c].mean(0)
                for c in range(10)
            ]
        )
    )

    def nats(pixels: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return -((pixels - means[condition]) ** 2).sum((1, 2)) / 18

    model = FakeGenerator(nats, of_train(generate))
    result = generate.evaluate(model, "test", "cpu", full=True)
    pixels = generate.images.pixels["test"].astype(float)
    nearest = ((pixels[:, None] - means.numpy()[None]) ** 2).sum((2, 3)).argmin(1)
    expected = (nearest == generate.images.labels["test"]).mean()
    assert result.secondary["accuracy_log_p"] == pytest.approx(expected)
    assert 0 < result.secondary["nll_log_p"] < math.log(10)
    assert "20 forwards" in result.notes["accuracy_log_p"]
    assert weights_sha256()[:16] in result.notes["samples"]
    assert result.artefacts["samples"].shape == (180, 8, 8)
    assert np.bincount(result.artefacts["classes"]).tolist() == [18] * 10
    scores = ("frechet", "kernel", "precision", "recall", "density", "coverage")
    for name in scores:
        assert math.isfinite(result.secondary[name])
        # Real images lie at the floor, which is that of other real images.
        assert result.secondary[name] == pytest.approx(
            result.secondary[f"{name}_floor"], abs=0.5 if name == "frechet" else 0.15
        )
    bound = FakeGenerator(nats, of_train(generate), bound=True)
    assert "accuracy_log_p" not in generate.evaluate(bound, "test", "cpu", full=True).secondary


def test_samples_are_judged_worse_the_worse_they_are(generate: GenerateTask) -> None:
    rng = np.random.default_rng(0)
    real = generate.balanced("train")
    steps = [
        generate.sample_quality(np.clip(real + rng.integers(-k, k + 1, real.shape), 0, 16))
        for k in (0, 3, 6)
    ]
    frechet = [s["frechet"] for s in steps]
    assert frechet == sorted(frechet)
    assert frechet[0] == steps[0]["frechet_floor"]
    baselines = {b.name: b.quality for b in generate.baselines()}
    marginal, uniform = baselines["pixel marginal"], baselines["uniform"]
    assert uniform.value == pytest.approx(math.log2(17))
    assert 2.1 < marginal.value < 2.3
    floor = marginal.secondary["frechet_floor"]
    assert floor < 0.5 * marginal.secondary["frechet"] < marginal.secondary["frechet"]
    assert marginal.secondary["frechet"] < uniform.secondary["frechet"]
    assert marginal.secondary["kernel"] > marginal.secondary["kernel_floor"]
    assert uniform.secondary["precision"] < marginal.secondary["precision"]


@pytest.mark.parametrize(
    "drawn",
    [torch.zeros(180, 8, 8), torch.zeros(5, 8, 8).long(), torch.full((180, 8, 8), 17)],
)
def test_samples_that_are_no_images_are_refused(
    generate: GenerateTask, drawn: torch.Tensor
) -> None:
    model = FakeGenerator(lambda p, y: torch.zeros(len(p)), lambda n, c: drawn)
    with pytest.raises(ValueError, match=r"model\.sample returned"):
        generate.evaluate(model, "test", "cpu", full=True)


def test_committed_encoder_reads_digits() -> None:
    images = digits()
    encoder = load_encoder()
    assert WEIGHTS.is_file()
    with torch.no_grad():
        logits = encoder(torch.from_numpy(images.pixels["test"]))
    assert (logits.argmax(1).numpy() == images.labels["test"]).mean() >= 0.97
    train = features(images.pixels["train"])
    assert train.dtype == np.float64
    assert np.allclose(train.mean(0), 0, atol=1e-3)
    assert np.allclose(train.std(0), 1, atol=1e-2)


@pytest.mark.parametrize("key", sorted(KEYS))
def test_keys_that_do_not_describe_the_images_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"task.{key}=16 .*allowed is"):
        DigitsTask(**(KEYS | {key: 16}))
