"""Matched sizes: solve one integer of a model so that its parameter count meets a target.

A model's configuration names, for each size, the values that are given (`shapes`) and the one
integer that is solved for (`solve`). The model is built on the meta device, so that solving costs
no memory and little time.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.parameters import Count, count

TOLERANCE = 0.03


@dataclass(frozen=True)
class Solve:
    """The dotted `key` that may take the values low, low + step, … up to high."""

    key: str
    low: int
    high: int
    step: int


def set_dotted(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set `tree["a"]["b"]` for key "a.b"; every part but the last must exist."""
    *path, last = key.split(".")
    node: Any = tree
    for part in path:
        if not isinstance(node, dict) or part not in node:
            raise ValueError(f"model.{key} names no value: there is no {part!r}")
        node = node[part]
    node[last] = value


def count_on_meta(build: Callable[[], nn.Module]) -> Count:
    with torch.device("meta"):
        return count(build())


def solve(count_at: Callable[[int], int], target: int, rule: Solve) -> int:
    """The value of the solved key whose count is nearest to `target`.

    `count_at` must not decrease. Raises ValueError when the nearest lies outside the tolerance.
    """
    low, high = 0, (rule.high - rule.low) // rule.step
    seen: dict[int, int] = {}

    def at(index: int) -> int:
        if index not in seen:
            seen[index] = count_at(rule.low + index * rule.step)
        return seen[index]

    # Counts are close to linear in the key between two points, so interpolation needs few builds.
    at(low)
    upper = min(low + 16, high)
    while at(upper) < target and upper < high:
        low, upper = upper, min(upper * 2, high)
    while upper - low > 1:
        share = (target - at(low)) / max(at(upper) - at(low), 1)
        middle = low + round((upper - low) * min(max(share, 0.0), 1.0))
        middle = min(max(middle, low + 1), upper - 1)
        if at(middle) < target:
            low = middle
        else:
            upper = middle
        if min(abs(at(low) - target), abs(at(upper) - target)) <= 0.002 * target:
            break
    best = min(seen, key=lambda index: abs(seen[index] - target))
    error = abs(seen[best] - target) / target
    if error > TOLERANCE:
        raise ValueError(
            f"no value of {rule.key} between {rule.low} and {rule.high} brings the model within "
            f"{TOLERANCE:.0%} of {target:,} parameters; the nearest, "
            f"{rule.low + best * rule.step}, gives {seen[best]:,}"
        )
    return rule.low + best * rule.step


def fit(
    model: dict[str, Any],
    kind: str,
    size: str,
    target: int,
    instantiate: Callable[[dict[str, Any]], nn.Module],
) -> dict[str, Any]:
    """The configuration of `model` for one kind of task with its shape set and its key solved.

    `model` is the resolved model group. Returns the node to instantiate. Without `shapes` (a
    user's own module) the configuration is taken as it stands.
    """
    kinds = model.get("kinds", {})
    if kind not in kinds:
        allowed = ", ".join(kinds) or "none"
        raise ValueError(f"model={model.get('name')} has no kind {kind!r}; it has: {allowed}")
    own = kinds[kind]
    shapes = own.get("shapes", model.get("shapes"))
    rule = own.get("solve", model.get("solve"))
    if not shapes:
        return copy.deepcopy(own["model"])
    if size not in shapes:
        raise ValueError(
            f"size={size} is not known to model={model.get('name')}; it has: {', '.join(shapes)}"
        )

    def node(value: int | None) -> dict[str, Any]:
        tree = copy.deepcopy(model)
        _share(tree.get("backbone"), tree["kinds"][kind]["model"])
        for key, given in shapes[size].items():
            set_dotted(tree, key, given)
        if rule is not None and value is not None:
            set_dotted(tree, rule["key"], value)
        return tree["kinds"][kind]["model"]

    if rule is None:
        return node(None)
    limits = Solve(key=rule["key"], low=rule["low"], high=rule["high"], step=rule["step"])
    found = solve(
        lambda value: count_on_meta(lambda: instantiate(node(value))).matched, target, limits
    )
    return node(found)


def _share(backbone: object, node: object) -> None:
    """Make the form's backbone the model's own again: resolving interpolations copied it.

    It stands below `node`, in another part of the form where the objective wraps it.
    """
    if not isinstance(backbone, dict) or not isinstance(node, dict):
        return
    inner = node.get("backbone")
    if isinstance(inner, dict) and inner.get("_target_") == backbone.get("_target_"):
        # A form may override single values of the shared backbone; they win.
        backbone.update(inner)
        node["backbone"] = backbone
        return
    for part in node.values():
        _share(backbone, part)
