"""The keys that the bench owns, with their types, and how a composed configuration becomes a cell.

`Config` is the schema that `configs/config.yaml` is checked against: a misspelt key or a wrong
type is an error. Models, tasks and scenarios are plain YAML with keys of their own.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.errors import BadInput, one_line, unknown
from bench.targets import check_targets

GROUPS = ("model", "task", "scenario", "size", "suite", "device")
SCALARS = ("seed", "dtype", "threads", "compile")
AXES = ("model", "task", "scenario", "size", "device", *SCALARS)
RUNNER_KEYS = (
    "results",
    "output",
    "force",
    "plan",
    "budget",
    "timeout",
    "memory_limit_gib",
    "allow_targets",
)
DTYPES = ("float32", "bfloat16", "float16")
OUTPUTS = ("table", "json")
UNITS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "": 1.0}


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
    items: dict[str, int] = MISSING  # training items (windows, images) by task
    validation_items: int | None = MISSING  # None: the whole split
    test_items: int | None = MISSING
    measure: Measure = field(default_factory=Measure)


@dataclass
class Size:
    """`parameters` outside embeddings that every family is brought to."""

    name: str = MISSING
    description: str = MISSING
    parameters: int = MISSING


@dataclass
class Device:
    """`name` is what torch calls it; `auto` takes CUDA where it is there."""

    name: str = MISSING
    description: str = MISSING


@dataclass
class Optimizer:
    """The training recipe, see `bench.training`; a model's own `optimizer` values win."""

    lr: float = MISSING
    adam_ratio: float = MISSING
    weight_decay: float = MISSING
    cooldown: float = MISSING
    clip: float = MISSING


@dataclass
class Config:
    """All keys of a cell's configuration; the last block steers the runner and is no identity."""

    model: Any = MISSING
    task: Any = MISSING
    scenario: Any = MISSING
    size: Size = field(default_factory=Size)
    suite: Suite = field(default_factory=Suite)
    device: Device = field(default_factory=Device)
    seed: int = MISSING
    dtype: str = MISSING
    threads: int | None = MISSING
    compile: bool = MISSING
    lr: float | None = MISSING
    optimizer: Optimizer = field(default_factory=Optimizer)

    results: str = MISSING
    output: str = MISSING
    force: bool = MISSING
    plan: bool = MISSING
    budget: str | None = MISSING
    timeout: float = MISSING
    memory_limit_gib: float | None = MISSING
    allow_targets: list[str] = MISSING


def check_scalar(key: str, value: object) -> int | str | bool:
    """One value of the axes seed, dtype, threads or compile; BadInput where it is none."""
    text = str(value).strip()
    if key == "dtype":
        if text not in DTYPES:
            raise unknown(key, text, DTYPES)
        return text
    if key == "compile":
        if text.lower() not in ("true", "false"):
            raise BadInput(f"compile={text} is no truth value; allowed: true, false.")
        return text.lower() == "true"
    least = 1 if key == "threads" else 0
    if not re.fullmatch(r"[+-]?\d+", text) or isinstance(value, bool):
        raise BadInput(f"{key}={text} is no whole number; allowed: integers from {least}.")
    if not least <= int(text) < 2**31:
        raise BadInput(f"{key}={text} is out of range; allowed: integers from {least}.")
    return int(text)


def check_types(keys: Sequence[str], config: DictConfig, reference: DictConfig, size: str) -> None:
    """Values given inside a group of plain YAML have the type of the value that they replace."""
    for key in keys:
        default = _default(key, reference, size)
        _check_type(key, OmegaConf.select(config, key, throw_on_missing=False), default)


def _default(key: str, reference: DictConfig, size: str) -> Any:
    """The value that stands where nothing is given: the size's shape where the YAML has none."""
    value = OmegaConf.select(reference, key, throw_on_missing=False)
    if value is None and key.startswith("model."):
        return _shapes(reference, size).get(key.removeprefix("model."))
    return value


def _shapes(config: DictConfig, size: str) -> dict[str, Any]:
    """The shapes of a size by dotted key, those of the task's form of the model before others."""
    form = (config.model.get("kinds") or {}).get(str(config.task.kind)) or {}
    holder = form if form.get("shapes") else config.model
    return dict((holder.get("shapes") or {}).get(size) or {})


def differs(key: str, config: DictConfig, reference: DictConfig, size: str) -> bool:
    """Whether giving `key` made another cell than the default; a solved key is no longer solved."""
    form = (reference.model.get("kinds") or {}).get(str(reference.task.kind)) or {}
    solved = [(part.get("solve") or {}).get("key") for part in (form, reference.model)]
    if key.startswith("scenario.") or key.removeprefix("model.") in solved:
        return True  # the reference is composed for one scenario
    missing = object()
    value = OmegaConf.select(config, key, throw_on_missing=False, default=missing)
    default = OmegaConf.select(reference, key, throw_on_missing=False, default=missing)
    shape = _shapes(reference, size).get(key.removeprefix("model."), default)
    return bool(value != shape)


def stated(key: str, config: DictConfig) -> str:
    """`key=value` in one spelling, however the user wrote the value; `~key` where it is gone."""
    missing = object()
    value = OmegaConf.select(config, key, throw_on_missing=False, default=missing)
    if value is missing:
        return f"~{key}"
    if isinstance(value, bool) or value is None:
        return f"{key}={'null' if value is None else str(value).lower()}"
    return f"{key}={value}"


def _check_type(key: str, value: object, default: object) -> None:
    """BadInput where a number or a truth value is replaced by something else."""
    kinds: dict[type, tuple[str, tuple[type, ...]]] = {
        bool: ("a truth value, as", (bool,)),
        int: ("a whole number, as", (int,)),
        float: ("a number, as", (int, float)),
    }
    if type(default) not in kinds or value is None:
        return
    words, allowed = kinds[type(default)]
    if type(value) not in allowed:
        raise BadInput(f"{key}={value} is of the wrong type; allowed: {words} {default}.")


def check_runner(config: DictConfig) -> None:
    """Values of the keys that steer the runner."""
    if config.output not in OUTPUTS:
        raise unknown("output", config.output, OUTPUTS)
    if not config.timeout > 0:
        raise BadInput(f"timeout={config.timeout} is too small; allowed: seconds above 0.")
    limit = config.memory_limit_gib
    if limit is not None and not limit > 0:
        raise BadInput(f"memory_limit_gib={limit} is too small; allowed: GiB above 0, or null.")
    if not config.results.strip():
        raise BadInput("results= is empty; allowed: the path of a folder.")
    parse_duration("budget", config.budget)


def parse_duration(key: str, text: str | None) -> float | None:
    """Seconds of '90', '90s', '30min', '1h', '1.5h'."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|m|min|h)?\s*", text)
    if match is None or float(match[1]) == 0:
        raise BadInput(f"{key}={text} is no duration; allowed: such as 90s, 30min or 1.5h.")
    return float(match[1]) * UNITS[match[2] or ""]


def check_numbers(config: DictConfig) -> None:
    """Numbers that would make a run empty or impossible."""
    suite = config.suite
    positive: dict[str, Any] = {f"suite.items.{name}": n for name, n in suite["items"].items()}
    positive |= {f"suite.{key}": suite[key] for key in ("validation_items", "test_items")}
    positive |= {f"suite.measure.{k}": suite.measure[k] for k in ("min_samples", "max_seconds")}
    positive["size.parameters"] = config.size.parameters
    positive["lr"] = config.lr
    positive |= {f"optimizer.{key}": config.optimizer[key] for key in ("lr", "clip")}
    for key, number in positive.items():
        if number is not None and not number > 0:
            raise BadInput(f"{key}={number} is too small; allowed: numbers above 0.")
    for key in ("adam_ratio", "weight_decay", "cooldown"):
        if not config.optimizer[key] >= 0:
            number = config.optimizer[key]
            raise BadInput(f"optimizer.{key}={number} is too small; allowed: numbers from 0.")
    rates = {f"optimizer.{key}": number for key, number in config.optimizer.items()}
    for key, number in {"lr": config.lr, **rates}.items():
        if number is not None and not math.isfinite(number):
            raise BadInput(f"{key}={number} is not finite; allowed: numbers above 0.")


def finish(config: DictConfig, overridden: Sequence[str], allow: Sequence[str]) -> dict[str, Any]:
    """The resolved plain configuration of one cell, checked.

    The kind of the task picks the one form of the model that is kept; the shapes of the size are
    set, except where the user gave a value (`overridden`, dotted below `model`), which also stops
    the size from being solved for when it is the solved key.
    """
    tree = OmegaConf.to_container(config, resolve=False)
    assert isinstance(tree, dict)
    model, task, size = tree["model"], tree["task"], tree["size"]["name"]
    where = f"model={model.get('name')}"
    kind = _kind(task)
    own = model["kinds"][kind]
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
        if (part.get("solve") or {}).get("key") in overridden:
            part["solve"] = None
    if own is not holder:
        own.pop("shapes", None)
    else:
        model.pop("shapes", None)
    for key in RUNNER_KEYS:
        tree.pop(key, None)
    return _resolve(tree, where, allow)


def finish_task(config: DictConfig, allow: Sequence[str]) -> dict[str, Any]:
    """The configuration of a cell without a model: a task's plain baselines."""
    tree = OmegaConf.to_container(config, resolve=False)
    assert isinstance(tree, dict)
    for key in (*RUNNER_KEYS, "model", "size"):
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
    result = {str(key): value for key, value in plain.items()}
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
