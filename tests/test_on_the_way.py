"""Scores on validation in the course of training: when, outside which clock, and unseen by it."""

import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.scenarios import quality
from bench.scenarios.base import Context
from bench.scenarios.train import run as run_train
from bench.store.record import validate
from bench.tasks.base import Quality, scoring
from bench.tasks.base import quality as scored
from bench.training import Budget, Curve, Recipe, train
from tests.factories import make_record
from tests.models.test_dtype import example
from tests.test_scenarios import OneBatch, context
from tests.zoo import SIZED, build

CPU = torch.device("cpu")
RECIPE = Recipe(lr=0.01, adam_ratio=0.5, weight_decay=0.1, cooldown=0.5, clip=1.0)


def fit(model: nn.Module, kind: str, check: Callable[[], float] | None, steps: int = 4) -> Curve:
    """With a check after every step but the last."""
    return train(
        model, itertools.repeat(example(kind)), budget=Budget(2 * steps), batch_size=2,
        recipe=RECIPE, device=CPU, every=1, checks=0 if check is None else steps, check=check,
    ).curve  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "checks", "expected"),
    [(80, 8, [10, 20, 30, 40, 50, 60, 70]), (3, 8, [1, 2]), (1, 8, []), (100, 1, []), (100, 0, [])],
)
def test_checks_are_equal_shares_but_for_the_end(
    steps: int, checks: int, expected: list[int]
) -> None:
    done = train(
        tiny(), itertools.repeat(example("language")), budget=Budget(steps), batch_size=1,
        recipe=RECIPE, device=CPU, checks=checks, check=lambda: 0.0,
    )  # fmt: skip
    assert done.curve.validation.items == expected


def score(model: Any, kind: str) -> float:
    """What tasks of the kind ask a model for."""
    given = example(kind)
    if kind == "language":
        return float(model.log_prob(given["tokens"]).nats.sum())
    if kind == "classify":
        return float(model.classify(given["pixels"][:1]).sum())
    return float(model.log_prob(given["pixels"], given["condition"]).nats.sum())


@pytest.mark.parametrize(("name", "kind"), SIZED)
def test_training_is_the_same_to_the_last_bit(name: str, kind: str) -> None:
    """Of every model: weights, buffers, losses, its mode, and the random numbers that come next."""
    seen = []
    for checked in (False, True):
        model = build(name, kind)
        torch.manual_seed(1)

        def check(model: nn.Module = model) -> float:
            with scoring(model, CPU):
                assert not model.training
                return score(model, kind)

        curve = fit(model, kind, check if checked else None, steps=2)
        assert all(module.training for module in model.modules())
        assert len(curve.validation.value) == checked
        seen.append((curve.loss, torch.rand(1), model.state_dict()))
    (losses, drawn, weights), (same, again, others) = seen
    assert losses == same
    assert torch.equal(drawn, again)
    assert all(torch.equal(weights[key], others[key]) for key in weights)


def test_the_clock_stands_still_meanwhile() -> None:
    def check() -> float:
        time.sleep(0.3)
        return 1.0

    curve = fit(tiny(), "language", check)
    checks = curve.validation
    assert checks.items == [2, 4, 6]
    assert curve.seconds[-1] < 0.3
    merged = [s for pair in zip(curve.seconds, checks.seconds, strict=False) for s in pair]
    assert merged == sorted(merged)
    assert curve.thinned(2).validation == checks


def tiny() -> nn.Module:
    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(256, 256)

        def forward(self, *, tokens: Tensor, labels: Tensor) -> Any:
            logits = self.table(tokens).flatten(0, 1)
            loss = nn.functional.cross_entropy(logits, labels.flatten())
            return type("Output", (), {"loss": loss})

    return Tiny()


def test_a_score_that_is_no_number_meets_no_target() -> None:
    values = iter([math.inf, 3.0, math.nan])
    checks = fit(tiny(), "language", lambda: next(values)).validation
    assert (checks.items, checks.value) == ([4], [3.0])


class Careless(OneBatch):
    """A task that leaves the model in evaluation mode, and draws random numbers as it likes."""

    def evaluate(self, model: nn.Module, split: str, device: Any, **options: Any) -> Quality:
        model.eval()
        torch.rand(7)
        return scored("nats", np.full(3, float(torch.rand(1))), better="lower", bound=False)


def made(folder: Path, kind: str = "classify", **changes: Any) -> Context:
    found = context("resnet", kind, "quality", folder)
    found.config["suite"]["items"] = {kind: 16}
    found.config["task"]["target"] = 0.5
    found.scenario.update(changes)
    return found


def test_a_record_has_the_checks_the_target_and_what_a_step_costs(tmp_path: Path) -> None:
    given = made(tmp_path, checks=4)
    found = quality.run(given)
    curve = found["curve"]
    assert curve["validation"]["items"] == [4, 8, 12, 16]
    assert curve["validation"]["value"] == [1.0] * 4
    assert curve["validation"]["seconds"][-1] == found["quality"]["train_seconds"]
    assert found["quality"]["target"] == 0.5
    step = run_train(context("resnet", "classify", "train", tmp_path))["cost"]["flops"]
    assert curve["flops_per_item"] == step / given.batch_size
    section = {"quality": found["quality"], "curve": curve}
    assert validate(make_record(task="digits", scenario="quality", **section))["curve"] == curve


def test_what_is_compiled_costs_as_much(tmp_path: Path) -> None:
    plain, compiled = (
        quality.run(context("resnet", "classify", "quality", tmp_path, compiled=c))["curve"]
        for c in (False, True)
    )
    assert compiled["flops_per_item"] == plain["flops_per_item"]


def test_a_careless_task_changes_nothing(tmp_path: Path) -> None:
    curves = []
    for checks in (0, 4):
        given = made(tmp_path, checks=checks)
        careless = Careless("classify")
        curves.append(quality.run(Context(**{**vars(given), "task": careless}))["curve"])
    assert curves[0]["loss"] == curves[1]["loss"]
    assert curves[0]["validation"]["value"] == []
    assert len(curves[1]["validation"]["value"]) == 4
