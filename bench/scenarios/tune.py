"""Try every pair of a declared grid of rates and weight decays; validation alone is read.

Each trial trains a fresh model as the quality scenario would, so that every family that is tuned by
the same grid has had the same effort. The record holds all of them: the search that set a default
can be seen.
"""

import dataclasses
import itertools
import math
from typing import Any

from torch import nn

from bench.scenarios.base import Context
from bench.scenarios.quality import fit, require_weights, validate
from bench.scenarios.train import flops_per_item
from bench.training import Diverged


def run(context: Context) -> dict[str, Any]:
    trials: list[dict[str, Any]] = []
    better = "lower"
    grid, decays = context.scenario["grid"], context.scenario["weight_decay"]
    flops = flops_per_item(context, _trainable(context))
    for lr, decay in itertools.product(grid, decays):
        own = context.recipe.weight_decay
        recipe = dataclasses.replace(
            context.recipe, lr=float(lr), weight_decay=own if decay is None else float(decay)
        )
        said: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
        trials.append(said)
        model = context.build()
        try:
            fit(dataclasses.replace(context, recipe=recipe), model, flops)
        except Diverged as error:
            said |= {"value": None, "reason": str(error)}
            continue
        score = validate(context, model)
        better = score.better
        if math.isfinite(score.value):
            said |= {"value": score.value, "stderr": score.stderr}
        else:
            reason = f"{score.metric} on the validation part is {score.value}"
            said |= {"value": None, "reason": reason}
    scored = [trial for trial in trials if trial["value"] is not None]
    if not scored:
        raise Diverged(f"none of {len(trials)} trials with the rates {grid} trained")
    sign = 1 if better == "lower" else -1
    best = min(scored, key=lambda trial: sign * trial["value"])
    return {
        "figures": {"best_lr": best["lr"], "best_weight_decay": best["weight_decay"]},
        "tuning": {"trials": trials, "better": better},
        "validity": {"valid": True, "reason": None},
    }


def _trainable(context: Context) -> nn.Module:
    """A model of the cell, refused where it cannot be trained or scored."""
    model = context.build()
    context.require_trainable(model)
    context.require_scorable(model)
    require_weights(context, model)
    return model
