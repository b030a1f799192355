"""Train until the budget is spent, then read the test part once.

Validation is scored on the way, `scenario.checks` times at equal shares of the training, the last
time at its end: what time to a target is read from. Training does not notice: the clock stands
still, and the same seed gives the same weights with and without.
"""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_model
from torch import nn

from bench.budgets import PARAMS
from bench.matching import budget_of, missed
from bench.protocol import Stateful
from bench.scenarios.base import Context, Unsupported, scores
from bench.scenarios.train import flops_per_item
from bench.tasks.base import Quality, scoring
from bench.training import Curve, Trained, train

CURVE_POINTS = 200  # as many as a figure shows


def require_weights(context: Context, model: nn.Module) -> None:
    """Refuse to train what has nothing to learn with."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise Unsupported(
            f"model={context.config['model']['name']} has no weights that learn; "
            "scenario.finetune=false scores it as it was read"
        )


def fit(context: Context, model: nn.Module, flops: float | None) -> Trained:
    """Train `model` as suite and match say; the same data order for every family.

    `flops` are those of an item, by `flops_per_item`; None: not known.
    """
    require_weights(context, model)

    def check() -> float:
        with scoring(model, context.device):  # whatever the task of a user leaves changed
            return validate(context, model).value

    return train(
        model,
        context.task.batches("train", context.batch_size, int(context.config["seed"])),
        budget=budget_of(context, flops),
        batch_size=context.batch_size,
        recipe=context.recipe,
        device=context.device,
        dtype=context.dtype,
        checks=int(context.scenario.get("checks", 0)),
        check=check,
    )


def validate(context: Context, model: nn.Module) -> Quality:
    """The score on the validation part, or on as much of it as the suite says."""
    # A row of one dtype is of that dtype throughout; likelihoods are summed in float32 or more.
    with context.autocast():
        return context.task.evaluate(
            model,
            "validation",
            context.device,
            max_items=context.config["suite"]["validation_items"],
        )


def trained(context: Context, curve: Curve) -> dict[str, int]:
    """What the optimizer was really shown: whole batches of items, and their tokens in a text."""
    items = curve.items[-1]
    counts = {"train_items": items}
    if context.task.unit == "tokens":
        counts["train_tokens"] = items * context.task.symbols_per_item
    return counts


def learning_curve(context: Context, curve: Curve, flops: float | None) -> dict[str, Any]:
    """The curve as a record holds it; the artefact has every point."""
    text = context.task.unit == "tokens"
    return {
        **dataclasses.asdict(curve.thinned(CURVE_POINTS)),
        "tokens_per_item": context.task.symbols_per_item if text else None,
        "flops_per_item": flops,
    }


def run(context: Context) -> dict[str, Any]:
    model = context.build()
    context.require_scorable(model)
    done: Trained | None = None
    flops: float | None = None
    if context.scenario.get("finetune") or not context.config["model"].get("pretrained"):
        context.require_trainable(model)
        require_weights(context, model)
        flops = flops_per_item(context, model)
        del model  # whose weights that changed: the same ones are drawn, or read, again
        model = context.build()
        done = fit(context, model, flops)
    curve = None if done is None else done.curve
    late = None if curve is None else missed(context, curve)
    validation = validate(context, model)
    if curve is not None and context.scenario.get("checks"):
        curve.validation.add(curve.items[-1], curve.seconds[-1], validation.value)
    with context.autocast():
        quality = context.task.evaluate(
            model,
            "test",
            context.device,
            max_items=context.config["suite"]["test_items"],
            full=True,
        )
    values = {"test": quality.value, "validation": validation.value}
    for part, value in values.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"{quality.metric} on the {part} part is {value}")

    save_model(model, str(context.workdir / "checkpoint.safetensors"))
    np.save(context.workdir / "items.npy", quality.items)
    for name, array in quality.artefacts.items():
        np.save(context.workdir / f"{name}.npy", array)
    if curve is not None:
        (context.workdir / "curve.json").write_text(json.dumps(dataclasses.asdict(curve)))
    return {
        "quality": {
            **scores(quality),
            "validation_value": validation.value,
            "target": context.config["task"].get("target"),
            "items_artefact": "items.npy",
            **_training(context, done),
        },
        "figures": _state(context, model),
        **({} if curve is None else {"curve": learning_curve(context, curve, flops)}),
        "validity": {"valid": late is None, "reason": late},
    }


def _state(context: Context, model: nn.Module) -> dict[str, int]:
    """Bytes that a sequence of the task carries, where the model has a state."""
    if not isinstance(model, Stateful):
        return {}
    length = context.task.symbols_per_item
    return {
        "state_bytes": model.state_bytes(1, length, torch.float32),
        "state_context": length,
    }


def _training(context: Context, done: Trained | None) -> dict[str, Any]:
    """What the optimizer did; nothing to a checkpoint that was scored as it is."""
    if done is None:
        return {"train_items": 0, "train_seconds": 0.0}
    tuned = (context.config["model"].get("tuned") or {}).get(context.config["task"]["name"]) or {}
    match = context.config["match"]
    searched = match["name"] == PARAMS and match["target"] is None  # of this shape and length
    return {
        **trained(context, done.curve),
        "train_seconds": done.curve.seconds[-1],
        "lr": context.recipe.lr,
        "optimizer": done.optimizer,
        "tuned": searched and tuned.get(context.config["size"]["name"]) == context.recipe.lr,
    }
