"""Builds any model of `configs/model` as the worker would, for tests over the whole registry."""

import copy
import functools
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from bench.objectives import lay
from bench.sizes import fit

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILED = ("rwkv_package",)  # run from a checkpoint alone: tests/models/test_rwkv_model.py
MODELS = sorted({path.stem for path in (CONFIGS / "model").glob("*.yaml")} - set(FILED))
SIZES = {
    path.stem: yaml.safe_load(path.read_text())["parameters"]
    for path in (CONFIGS / "size").glob("*.yaml")
}
TASKS: dict[str, dict[str, Any]] = {
    "language": {"vocab_size": 256, "context": 256},
    "classify": {"levels": 17, "n_classes": 10, "height": 8, "width": 8, "channels": 1},
    "generate": {"levels": 17, "n_classes": 10, "height": 8, "width": 8, "channels": 1},
}
KINDS = tuple(TASKS)
GROUPS = {name: yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text()) for name in MODELS}
PAIRS = [(name, kind) for name in MODELS for kind in KINDS if kind in GROUPS[name]["kinds"]]
FREE = ("hf", "timm", "diffusers")  # of other libraries, by name
# Those that are brought to a size; of another library's model the user says how large it is.
SIZED = [(name, kind) for name, kind in PAIRS if name not in FREE]


def crossed(name: str, objective: str) -> dict[str, Any]:
    """A model's group with the forms that it has under an objective that is not its own."""
    kinds: dict[str, Any] = {}
    for kind in KINDS:
        task = {"kind": kind, "name": kind}
        tree = {"model": GROUPS[name], "objective": OBJECTIVES[objective], "task": task}
        tree = copy.deepcopy(tree)
        found = lay(tree, list(OBJECTIVES))
        if found.name and not found.refused:
            kinds |= tree["model"]["kinds"]
    return {**GROUPS[name], "kinds": kinds}


OBJECTIVES = {p.stem: yaml.safe_load(p.read_text()) for p in (CONFIGS / "objective").glob("*.yaml")}
CROSSED = {
    f"{name} under {objective}": crossed(name, objective)
    for name in MODELS
    for objective in GROUPS[name].get("objectives") or {}
}
CROSSED_PAIRS = [(name, kind) for name, group in CROSSED.items() for kind in group["kinds"]]


def resolved(name: str, kind: str, size: str, task: dict[str, Any] | None = None) -> dict[str, Any]:
    """The model group as a plain dictionary, all interpolations resolved for one kind."""
    model = copy.deepcopy({**GROUPS, **CROSSED}[name])
    model.pop("objectives", None)
    model["kinds"] = {kind: model["kinds"][kind]}
    shapes = model["kinds"][kind].get("shapes", model.get("shapes"))
    for key, value in (shapes or {}).get(size, {}).items():
        node = model
        *path, last = key.split(".")
        for part in path:
            node = node[part]
        node[last] = value
    tree = OmegaConf.create({"model": model, "task": {**TASKS[kind], **(task or {})}})
    found = OmegaConf.to_container(tree, resolve=True)
    assert isinstance(found, dict)
    return found["model"]


def node(
    name: str,
    kind: str,
    size: str = "nano",
    task: dict[str, Any] | None = None,
    target: int | None = None,
) -> dict[str, Any]:
    """The node to instantiate, solved to the size."""
    if task is None and name in CROSSED:  # which no test changes
        return copy.deepcopy(_solved(name, kind, size, target))
    return _fitted(name, kind, size, target, task)


@functools.cache
def _solved(name: str, kind: str, size: str, target: int | None) -> dict[str, Any]:
    return _fitted(name, kind, size, target, None)


def _fitted(
    name: str, kind: str, size: str, target: int | None, task: dict[str, Any] | None
) -> dict[str, Any]:
    model = resolved(name, kind, size, task)
    return fit(model, kind, size, target or SIZES[size], lambda n: instantiate(n, _convert_="all"))


def build(
    name: str, kind: str, size: str = "nano", task: dict[str, Any] | None = None
) -> nn.Module:
    """A model whose weights are all random: zero projections would let wrong paths go unseen."""
    solved = node(name, kind, size)
    solved = copy.deepcopy(solved)
    for key, value in (task or {}).items():
        if key in solved:
            solved[key] = value
        backbone = solved.get("backbone")
        if isinstance(backbone, dict) and key in backbone:
            backbone[key] = value
    torch.manual_seed(0)
    return randomise(instantiate(solved, _convert_="all"))


def randomise(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model
