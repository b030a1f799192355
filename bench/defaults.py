"""What was given inside a group, held against what stands there by default."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.errors import BadInput

ABSENT = object()  # not None, which a key may hold


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
    default = _value(key, reference)
    shape = _shapes(reference, size).get(key.removeprefix("model."), default)
    return bool(_value(key, config) != shape)


def stated(key: str, config: DictConfig) -> str:
    """`key=value` in one spelling, however the user wrote the value; `~key` where it is gone."""
    value = _value(key, config)
    if value is ABSENT:
        return f"~{key}"
    if isinstance(value, bool) or value is None:
        return f"{key}={'null' if value is None else str(value).lower()}"
    return f"{key}={value}"


def _value(key: str, config: DictConfig) -> Any:
    return OmegaConf.select(config, key, throw_on_missing=False, default=ABSENT)


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
