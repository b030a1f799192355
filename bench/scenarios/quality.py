"""Train until the budget is spent, then read the test part once."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
from safetensors.torch import save_model
from torch import nn

from bench.matching import budget_of
from bench.scenarios.base import Context, Unsupported, scores
from bench.training import Curve, Trained, train

CURVE_POINTS = 200  # as many as a figure shows


def fit(context: Context, model: nn.Module) -> Trained:
    """Train `model` as suite and match say; the same data order for every family."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise Unsupported(
            f"model={context.config['model']['name']} has no weights that learn; "
            "scenario.finetune=false scores it as it was read"
        )
    return train(
        model,
        context.task.batches("train", context.batch_size, int(context.config["seed"])),
        budget=budget_of(context, model),
        batch_size=context.batch_size,
        recipe=context.recipe,
        device=context.device,
        dtype=context.dtype,
    )


def trained(context: Context, curve: Curve) -> dict[str, int]:
    """What the optimizer was really shown: whole batches of items, and their tokens in a text."""
    items = curve.items[-1]
    counts = {"train_items": items}
    if context.task.unit == "tokens":
        counts["train_tokens"] = items * context.task.symbols_per_item
    return counts


def learning_curve(context: Context, curve: Curve) -> dict[str, Any]:
    """The curve as a record holds it; the artefact has every point."""
    text = context.task.unit == "tokens"
    tokens = context.task.symbols_per_item if text else None
    return {**dataclasses.asdict(curve.thinned(CURVE_POINTS)), "tokens_per_item": tokens}


def run(context: Context) -> dict[str, Any]:
    model = context.build()
    context.require_scorable(model)
    read = context.config["model"].get("pretrained") and not context.scenario["finetune"]
    if not read:
        context.require_trainable(model)
    done = None if read else fit(context, model)
    curve = None if done is None else done.curve
    suite = context.config["suite"]
    # A row of one dtype is of that dtype throughout; likelihoods are summed in float32 or more.
    with context.autocast():
        validation = context.task.evaluate(
            model, "validation", context.device, max_items=suite["validation_items"]
        )
        quality = context.task.evaluate(
            model, "test", context.device, max_items=suite["test_items"], full=True
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
            "items_artefact": "items.npy",
            **_training(context, done),
        },
        "figures": {},
        **({} if curve is None else {"curve": learning_curve(context, curve)}),
        "validity": {"valid": True, "reason": None},
    }


def _training(context: Context, done: Trained | None) -> dict[str, Any]:
    """What the optimizer did; nothing to a checkpoint that was scored as it is."""
    if done is None:
        return {"train_items": 0, "train_seconds": 0.0}
    tuned = (context.config["model"].get("tuned") or {}).get(context.config["task"]["name"]) or {}
    return {
        **trained(context, done.curve),
        "train_seconds": done.curve.seconds[-1],
        "lr": context.recipe.lr,
        "optimizer": done.optimizer,
        "tuned": tuned.get(context.config["size"]["name"]) == context.recipe.lr,
    }
