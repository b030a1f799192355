"""Try every rate of a declared grid; validation alone is read.

Each rate trains a fresh model as the quality scenario would. The record holds all of them, so that
the search that set a default can be seen.
"""

import dataclasses
import math
from typing import Any

from bench.scenarios.base import Context
from bench.scenarios.quality import fit
from bench.training import Diverged


def run(context: Context) -> dict[str, Any]:
    trials: list[dict[str, Any]] = []
    better = "lower"
    for lr in context.scenario["grid"]:
        recipe = dataclasses.replace(context.recipe, lr=float(lr))
        trial = dataclasses.replace(context, recipe=recipe)
        model = context.build()
        context.require_trainable(model)
        context.require_scorable(model)
        try:
            fit(trial, model)
        except Diverged as error:
            trials.append({"lr": float(lr), "value": None, "reason": str(error)})
            continue
        with context.autocast():
            score = context.task.evaluate(model, "validation", context.device)
        better = score.better
        if not math.isfinite(score.value):
            reason = f"{score.metric} on the validation part is {score.value}"
            trials.append({"lr": float(lr), "value": None, "reason": reason})
            continue
        trials.append({"lr": float(lr), "value": score.value, "stderr": score.stderr})
    scored = [trial for trial in trials if trial["value"] is not None]
    if not scored:
        raise Diverged(f"no rate of the grid {context.scenario['grid']} trained")
    sign = 1 if better == "lower" else -1
    best = min(scored, key=lambda trial: sign * trial["value"])
    return {
        "figures": {"best_lr": best["lr"]},
        "tuning": {"trials": trials, "better": better},
        "validity": {"valid": True, "reason": None},
    }
