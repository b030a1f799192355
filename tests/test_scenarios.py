"""Scenarios on real models: dtypes that cannot be trained, what counts as compiled, whose dtype."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from bench.meters.flops import count
from bench.meters.time import Limits
from bench.scenarios import decode, prefill, quality, sample, train, tune
from bench.scenarios.base import Context, Unsupported
from bench.store.record import validate
from bench.tasks.base import Quality
from bench.tasks.base import quality as scored
from bench.training import Diverged, Recipe, Trainer
from tests.factories import make_record
from tests.models.test_dtype import example
from tests.zoo import build

LIMITS = Limits(
    warmup=1, min_samples=1, min_seconds=0.0, max_seconds=0.1, relative_error=1.0
)  # fmt: skip
RECIPE = Recipe(lr=0.01, adam_ratio=0.5, weight_decay=0.0, cooldown=0.0, clip=1.0)


class OneBatch:
    """A task of one batch; remembers under which autocast it was evaluated."""

    unit = "images"

    def __init__(self, kind: str, value: float = 1.0) -> None:
        self.kind, self.value = kind, value
        self.symbols_per_item = 32 if kind == "language" else 64
        self.seen: list[torch.dtype | None] = []

    def batches(self, split: str, batch_size: int, seed: int) -> Any:
        while True:
            yield example(self.kind)

    def example(self, batch_size: int, length: int | None = None) -> dict[str, Tensor]:
        return example(self.kind)

    def evaluate(self, model: nn.Module, split: str, device: Any, **options: Any) -> Quality:
        on = torch.is_autocast_enabled("cpu")
        self.seen.append(torch.get_autocast_dtype("cpu") if on else None)
        return scored("nats", np.full(3, self.value), better="lower", bound=False)


def context(
    name: str,
    kind: str,
    scenario: str,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
    value: float = 1.0,
) -> Context:
    def fresh() -> nn.Module:
        model = build(name, kind)
        if compiled:
            model.compile(backend="eager")  # traces as any backend would; needs no C++ compiler
        return model

    sizes = {"language": 2, "classify": 4, "generate": 4}
    options = {"name": scenario, "batch_size": sizes, "grid": [0.01, 0.02], "weight_decay": [None]}
    if scenario == "decode":
        options |= {"batch_size": 2, "prompt": 32, "tokens": 4, "state_context": 64}
    config = {
        "seed": 0, "compile": compiled, "scenario": options, "model": {}, "size": {"name": "nano"},
        "task": {"name": "fake", "batch_size": 2},
        "suite": {"items": {kind: 4}, "validation_items": None, "test_items": None},
        "match": {"name": "params", "target": None},
    }  # fmt: skip
    return Context(
        task=OneBatch(kind, value),  # type: ignore[arg-type]
        build=fresh,
        config=config,
        recipe=RECIPE,
        limits=LIMITS,
        device=torch.device("cpu"),
        dtype=dtype,
        workdir=folder,
    )


@pytest.mark.parametrize("scenario", [train, quality, tune])
def test_float16_is_not_trained(scenario: Any, tmp_path: Path) -> None:
    name = scenario.__name__.rpartition(".")[2]
    half = context("resnet", "classify", name, tmp_path, dtype=torch.float16)
    with pytest.raises(Unsupported, match="dtype=float16 needs loss scaling"):
        scenario.run(half)
    with pytest.raises(ValueError, match="float16"):
        Trainer(nn.Linear(1, 1), RECIPE, 1, torch.float16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quality_is_evaluated_in_the_dtype_of_training(dtype: torch.dtype, tmp_path: Path) -> None:
    given = context("resnet", "classify", "quality", tmp_path, dtype=dtype)
    quality.run(given)
    tune.run(context("resnet", "classify", "tune", tmp_path, dtype=dtype))
    assert isinstance(given.task, OneBatch)
    assert given.task.seen == [None if dtype == torch.float32 else dtype] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_backward_pass_runs_outside_autocast(dtype: torch.dtype) -> None:
    seen: list[bool] = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            seen.append(torch.is_autocast_enabled("cpu"))
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            seen.append(torch.is_autocast_enabled("cpu"))
            return grad

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self) -> Any:
            loss = Watched.apply(self.weight).sum()
            return type("Output", (), {"loss": loss})

    Trainer(Model(), RECIPE, 1, dtype).step({})
    assert seen == [dtype != torch.float32, False]


NOT_COMPILED = [
    (prefill, "transformer", "language"),
    (decode, "transformer", "language"),
    (sample, "transformer", "generate"),
    (sample, "diffusion", "generate"),
    (sample, "diffusion", "language"),
    (prefill, "dit", "classify"),
]


@pytest.mark.parametrize(("scenario", "name", "kind"), NOT_COMPILED)
def test_what_forward_does_not_do_is_not_called_compiled(
    scenario: Any, name: str, kind: str, tmp_path: Path
) -> None:
    verb = scenario.__name__.rpartition(".")[2]
    with pytest.raises(Unsupported, match=f"compile=true .* {verb} of this model"):
        scenario.run(context(name, kind, verb, tmp_path, compiled=True))


@pytest.mark.parametrize(
    ("scenario", "name", "kind"), [(prefill, "resnet", "classify"), (train, "resnet", "classify")]
)
def test_what_forward_does_is_compiled(scenario: Any, name: str, kind: str, tmp_path: Path) -> None:
    verb = scenario.__name__.rpartition(".")[2]
    torch._dynamo.reset()
    counters.clear()
    result = scenario.run(context(name, kind, verb, tmp_path, compiled=True))
    assert result["figures"][f"{verb}_per_s"] > 0
    assert counters["frames"]["ok"] > 0


def test_decode_times_the_first_token_and_the_ones_after_it_apart(tmp_path: Path) -> None:
    given = context("transformer", "language", "decode", tmp_path)
    limits = dataclasses.replace(LIMITS, max_seconds=1.0)  # room for the five samples of a median
    found = decode.run(dataclasses.replace(given, limits=limits))
    latency, timing = found["latency"], found["timing"]
    assert latency["prompt"] == 32
    first = latency["ttft_samples_s"]
    assert latency["ttft_ci_low_s"] <= latency["ttft_s"] <= latency["ttft_ci_high_s"]
    assert latency["ttft_s"] == np.median(first)
    assert first != timing["samples_s"]
    assert latency["p50_s"] == pytest.approx(timing["median_s"])
    determined = timing["n"] >= 299
    assert (latency["p99_s"] is not None) == determined


def test_an_unsteady_first_token_makes_decode_invalid_and_says_so(tmp_path: Path) -> None:
    limits = dataclasses.replace(LIMITS, min_samples=1000)
    given = context("transformer", "language", "decode", tmp_path)
    found = decode.run(dataclasses.replace(given, limits=limits))
    assert not found["validity"]["valid"]
    assert "time to first token: " in found["validity"]["reason"]


def test_sample_has_no_first_token(tmp_path: Path) -> None:
    found = sample.run(context("transformer", "generate", "sample", tmp_path))
    assert set(found["latency"]) == {"p50_s", "p95_s", "p99_s"}


@pytest.mark.parametrize("name", ["transformer", "moe", "mamba", "mamba2", "rwkv", "resnet"])
@pytest.mark.parametrize("scenario", [prefill, decode, train])
def test_memory_is_what_formulas_state(name: str, scenario: Any, tmp_path: Path) -> None:
    verb = scenario.__name__.rpartition(".")[2]
    memory = scenario.run(context(name, "language", verb, tmp_path))["memory"]
    measured = {key: memory[key] for key in memory["predicted"]}
    assert measured == pytest.approx(memory["predicted"], rel=0.02)
    assert memory["peak_bytes"] > sum(measured.values())
    wanted = {"gradients_bytes", "optimizer_bytes"} if scenario is train else {"state_bytes"}
    assert set(measured) == {"parameters_bytes"} | wanted


def test_the_record_of_quality_has_the_curve(tmp_path: Path) -> None:
    found = quality.run(context("resnet", "classify", "quality", tmp_path))["curve"]
    whole = json.loads((tmp_path / "curve.json").read_text())
    assert found.pop("flops_per_item") > 0
    assert found == {**whole, "tokens_per_item": None}
    assert found["items"] == [4]


def test_the_record_of_quality_tells_the_optimizers(tmp_path: Path) -> None:
    made = context("resnet", "classify", "quality", tmp_path)
    section = quality.run(made)["quality"]
    record = validate(make_record(task="digits", scenario="quality", quality=section))
    found = record["quality"]["optimizer"]
    assert found["steps"] * made.batch_size >= made.items
    assert {group["optimizer"] for group in found["groups"]} == {"AdamW"}  # convolutions alone
    trained = sum(p.numel() for p in made.build().parameters() if p.requires_grad)
    assert sum(group["parameters"] for group in found["groups"]) == trained
    assert {group["lr"] for group in found["groups"]} == {RECIPE.lr * RECIPE.adam_ratio}
    assert record["quality"]["validation_value"] == 1.0


@pytest.mark.parametrize(
    "wrong", [{"validation_value": "1"}, {"optimizer": {"groups": [{"lr": "x"}]}}]
)
def test_a_record_with_other_types_there_is_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"quality\..* where float belongs"):
        validate(make_record(quality=wrong))


@torch.library.custom_op("archbench_tests::touched", mutates_args=())
def touched(x: Tensor) -> Tensor:
    return x.clone()


def test_the_cost_of_training_is_that_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which begins without gradients, and whose optimizers nobody may be able to count."""
    made = context("resnet", "classify", "train", tmp_path)
    model = made.build().train()
    trainer = Trainer(model, made.recipe, steps=10)
    batch = made.task.example(2)
    trainer.step(batch)
    model.zero_grad(set_to_none=True)
    step = [count(lambda: trainer.loss(batch).backward()), count(trainer.update)]
    update = Trainer.update

    def watched(self: Trainer) -> None:
        update(self)
        touched(torch.ones(1))

    monkeypatch.setattr(Trainer, "update", watched)
    cost = train.run(made)["cost"]
    more = 3 * torch.float32.itemsize  # the number written, then read and written once more
    assert cost["bytes_moved"] == sum(part.bytes_moved for part in step) + more
    assert cost["uncounted"] == ["archbench_tests::touched"]


class Silent(nn.Module):
    """Trains, and has nothing by which it could be scored."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, **_: Tensor) -> Any:
        raise AssertionError("trained although it cannot be scored")


@pytest.mark.parametrize("scenario", [quality, tune])
@pytest.mark.parametrize(
    ("kind", "lacking"),
    [("language", "log_prob"), ("generate", "log_prob"), ("classify", "classify, readout, view")],
)
def test_what_cannot_be_scored_is_refused_before_it_is_trained(
    scenario: Any, kind: str, lacking: str, tmp_path: Path
) -> None:
    made = context("resnet", kind, "quality", tmp_path)
    with pytest.raises(Unsupported, match=f"the model has no {lacking}.*kind '{kind}'"):
        scenario.run(dataclasses.replace(made, build=Silent))


def test_a_rate_whose_score_is_no_number_is_not_the_best(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="none of 2 trials"):
        tune.run(context("resnet", "classify", "tune", tmp_path, value=math.nan))
