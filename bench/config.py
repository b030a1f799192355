"""The keys that the bench owns, with their types, and how a composed configuration becomes a cell.

`Config` is the schema that `configs/config.yaml` is checked against: a misspelt key or a wrong
type is an error. Models, tasks and scenarios are plain YAML with keys of their own.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench import budgets
from bench.errors import BadInput, hint, one_line
from bench.targets import check_targets

GROUPS = ("model", "objective", "task", "scenario", "size", "match", "suite", "device")
SCALARS = ("seed", "dtype", "threads", "compile", "backend")
AXES = ("model", "objective", "task", "scenario", "size", "device", *SCALARS)
# What is read of a model's YAML, and of each of its `kinds`.
MODEL_KEYS = (
    "name", "family", "description", "backend", "kernel", "preload", "lr", "weight_decay", "tuned",
    "backbone", "shapes", "solve", "solve_state", "kinds", "objectives", "pretrained",
    "checkpoints", "backends",
)  # fmt: skip
# What steers the planner inside a suite and is no part of a cell.
PLANNED = ("objectives",)
FORM_KEYS = ("scenarios", "reasons", "backend", "shapes", "solve", "solve_state", "model", "causal")
RUNNER_KEYS = (
    "results",
    "output",
    "force",
    "plan",
    "budget",
    "timeout",
    "memory_limit_gib",
    "isolation",
    "repeats",
    "busy_gpu",
    "energy",
    "allow_targets",
)


@dataclass
class Measure:
    """When a measurement has seen enough: all minima are met, or the maximum is."""

    warmup: int = MISSING
    min_samples: int = MISSING
    min_seconds: float = MISSING
    max_seconds: float = MISSING
    relative_error: float = MISSING


@dataclass
class Suite:
    """A named set of cells. `version` rises with every change that makes figures incomparable."""

    name: str = MISSING
    version: int = MISSING
    description: str = MISSING
    models: list[str] = MISSING
    tasks: list[str] = MISSING
    scenarios: list[str] = MISSING
    size: str = MISSING
    seeds: list[int] = MISSING
    baselines: bool = MISSING
    objectives: list[str | None] = field(default_factory=lambda: [None])  # None: the family's own
    backends: list[str] = field(default_factory=lambda: ["auto"])
    checks: int = 8  # scores on validation in the course of a training
    ceilings: bool = False  # measure the machine's own, which a roofline needs
    items: dict[str, int] = MISSING  # training items (windows, images) by task
    validation_items: int | None = MISSING  # None: the whole split
    test_items: int | None = MISSING
    weight_decay: dict[str, float] = field(default_factory=dict)  # by task, where not the usual
    sizes: dict[str, list[str]] = field(default_factory=dict)  # by task, where not `size` alone
    measure: Measure = field(default_factory=Measure)


@dataclass
class Size:
    """`parameters` outside embeddings that every family is brought to."""

    name: str = MISSING
    description: str = MISSING
    parameters: int = MISSING


@dataclass
class Match:
    """What families are made equal in, see `bench.matching`; `target` None: of the size."""

    name: str = MISSING
    description: str = MISSING
    target: Any = None
    of: str = "training"  # flops alone
    context: int | None = None  # state alone


@dataclass
class Device:
    """`name` is what torch calls it; `auto` takes CUDA where it is there."""

    name: str = MISSING
    description: str = MISSING


@dataclass
class Optimizer:
    """The training recipe, see `bench.training`."""

    lr: float = MISSING
    adam_ratio: float = MISSING
    weight_decay: float = MISSING
    cooldown: float = MISSING
    clip: float = MISSING


@dataclass
class Config:
    """All keys of a cell's configuration; the last block steers the runner and is no identity."""

    model: Any = MISSING
    objective: Any = None  # that of every family where there is none
    task: Any = MISSING
    scenario: Any = MISSING
    size: Size = field(default_factory=Size)
    match: Match = field(default_factory=Match)
    suite: Suite = field(default_factory=Suite)
    device: Device = field(default_factory=Device)
    seed: int = MISSING
    dtype: str = MISSING
    threads: int | None = MISSING
    backend: str = MISSING
    compile: bool | str = MISSING
    lr: float | None = MISSING
    optimizer: Optimizer = field(default_factory=Optimizer)

    results: str = MISSING
    output: str = MISSING
    force: bool = MISSING
    plan: bool = MISSING
    budget: str | None = MISSING
    timeout: float = MISSING
    memory_limit_gib: float | None = MISSING
    isolation: str = MISSING
    repeats: int = MISSING
    busy_gpu: str = MISSING
    energy: bool = MISSING
    allow_targets: list[str] = MISSING


def check_model(config: DictConfig) -> None:
    """Refuse a model's YAML with a key that nobody reads, or without one that is needed.

    A key of the file's own is read where an interpolation of the file names it. A YAML whose
    `pretrained` is `???` has no weights to draw, and so needs a checkpoint.
    """
    model = tree_of(config.model)
    where = f"model={model.get('name', '?')}"
    used = set(re.findall(r"model\.([\w.]+)", " ".join(_interpolations(model))))
    _check_keys(where, model, MODEL_KEYS, ("name", "family", "kinds"), "", used)
    kinds = model["kinds"]
    if not isinstance(kinds, dict) or not all(isinstance(form, dict) for form in kinds.values()):
        raise BadInput(f"{where}: kinds is no mapping of kinds of tasks; see configs/model.")
    for kind, form in kinds.items():
        _check_keys(where, form, FORM_KEYS, ("scenarios", "model"), f"kinds.{kind}.", used)
    if OmegaConf.is_missing(config.model, "pretrained"):
        raise BadInput(
            f"{where} draws no weights of its own; give model.pretrained=FILE, a checkpoint"
        )


def check_form(model: Mapping[str, Any], kind: str) -> None:
    """Refuse the form that an objective gave a model, with a key that nobody reads."""
    where = f"objective of model={model['name']}"
    form, prefix = model["kinds"][kind], f"kinds.{kind}."
    _check_keys(where, form, FORM_KEYS, ("scenarios", "model"), prefix, set())


def tree_of(config: DictConfig) -> dict[str, Any]:
    """A configuration as plain values, its interpolations as they stand in the files."""
    tree = OmegaConf.to_container(config, resolve=False)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def _check_keys(
    where: str,
    block: Mapping[Any, Any],
    allowed: Sequence[str],
    needed: Sequence[str],
    prefix: str,
    used: set[str],
) -> None:
    listed = f"allowed: {', '.join(prefix + key for key in allowed)}"
    for key in map(str, block):
        path = prefix + key
        if key not in allowed and not any(f"{name}.".startswith(f"{path}.") for name in used):
            raise BadInput(
                f"{where}: '{path}' is no key that is read; {listed}, and keys that an "
                f"interpolation of the file names.{hint(key, allowed)}"
            )
    for key in needed:
        if block.get(key) is None:
            raise BadInput(f"{where}: the key '{prefix}{key}' is missing; {listed}.")


def _interpolations(node: Any) -> Iterator[str]:
    """Every string below `node` that refers to another value."""
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _interpolations(value)
    elif isinstance(node, str) and "${" in node:
        yield node


def finish(tree: dict[str, Any], overridden: Sequence[str], allow: Sequence[str]) -> dict[str, Any]:
    """The resolved plain configuration of one cell, checked; `tree` is used up.

    The kind of the task picks the one form of the model that is kept, whose objective gives way to
    that of the task where it has a `form` of its own; the shapes of the size are set, except where
    the user gave a value (`overridden`, dotted below `model`), which also stops the size from being
    solved for when it is the solved key.
    """
    model, task, size = tree["model"], tree["task"], tree["size"]["name"]
    where = f"model={model.get('name')}"
    kind = _kind(task)
    model.pop("objectives", None)
    if (objective := tree.pop("objective", None)) is not None:  # the model has its form by now
        tree["objective"] = objective["name"]
    own = model["kinds"][kind]
    if asked := task.get("form"):  # the task's own objective around the model's backbone
        own |= {**asked, "model": {**asked["model"], "backbone": own["model"]["backbone"]}}
    model["kinds"] = {kind: own}
    holder = own if own.get("shapes") else model
    if holder.get("shapes"):
        shapes = holder["shapes"]
        if size not in shapes:
            raise BadInput(f"size={size} is not known to {where}; allowed: {', '.join(shapes)}.")
        given = {k: v for k, v in shapes[size].items() if k not in overridden}
        holder["shapes"] = {size: given}
        for key, value in given.items():
            _set(model, key, value, where)
    for part in (own, model):
        for name in ("solve", "solve_state"):
            rule = part.get(name) or {}
            if rule.get("key") in overridden:
                part[name] = None
            elif rule.get("depth") in overridden:
                part[name] = {**rule, "depth": None}
    if own is not holder:
        own.pop("shapes", None)
    else:
        model.pop("shapes", None)
    return _resolve(tree, where, allow)


def finish_task(tree: dict[str, Any], allow: Sequence[str]) -> dict[str, Any]:
    """The configuration of a cell without a model: a task's plain baselines; `tree` is used up."""
    for key in ("model", "objective", "size"):
        tree.pop(key, None)
    return _resolve(tree, f"task={tree['task'].get('name')}", allow)


def _kind(task: Mapping[str, Any]) -> str:
    return str(task.get("kind"))


def _resolve(tree: dict[str, Any], where: str, allow: Sequence[str]) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except OmegaConfBaseException as error:
        raise BadInput(f"{where}: {one_line(str(error))}") from error
    assert isinstance(plain, dict)
    # They steer the runner and are no part of a cell, but a value of a cell may refer to one.
    result = {str(key): value for key, value in plain.items() if key not in RUNNER_KEYS}
    for key in PLANNED:
        result["suite"].pop(key, None)
    result["match"] = budgets.plain(result["match"])
    check_targets(result, allow)
    return result


def _set(model: dict[str, Any], key: str, value: Any, where: str) -> None:
    *path, last = key.split(".")
    node: Any = model
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise BadInput(f"{where}: the shape key '{key}' names no value of the model.")
    node[last] = value
