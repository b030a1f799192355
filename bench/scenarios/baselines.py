"""The plain rivals of a task, fitted on train and scored on test."""

from typing import Any

from bench.scenarios.context import Context


def run(context: Context) -> dict[str, Any]:
    baselines = []
    for baseline in context.task.baselines():
        quality = baseline.quality
        baselines.append(
            {
                "name": baseline.name,
                "description": baseline.description,
                "seconds": baseline.seconds,
                "quality": {
                    "metric": quality.metric,
                    "value": quality.value,
                    "better": quality.better,
                    "bound": quality.bound,
                    "stderr": quality.stderr,
                    "n_items": quality.n_items,
                    "secondary": quality.secondary,
                    "notes": quality.notes,
                },
            }
        )
    return {"baselines": baselines, "validity": {"valid": True, "reason": None}}
