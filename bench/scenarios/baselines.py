"""The plain rivals of a task, fitted on train and scored on test."""

from typing import Any

from bench.scenarios.base import Context, scores


def run(context: Context) -> dict[str, Any]:
    baselines = [
        {
            "name": baseline.name,
            "description": baseline.description,
            "seconds": baseline.seconds,
            "quality": scores(baseline.quality),
        }
        for baseline in context.task.baselines()
    ]
    return {"baselines": baselines, "validity": {"valid": True, "reason": None}}
