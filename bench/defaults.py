"""What was given inside a group, held against what stands there by default."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from bench.errors import BadInput

ABSENT = object()  # not None, which a key may hold
KINDS: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("a truth value, as", (bool,)),
    int: ("a whole number, as", (int,)),
    float: ("a number, as", (int, float)),
    str: ("a word, as", (str,)),
    DictConfig: ("a mapping, as", (DictConfig,)),
}
NULL = (bool, int, float)  # null may stand for these: there is none


def set_shapes(config: DictConfig, size: str) -> None:
    """Give the model the shapes of a size, those of the task's form of it before others.

    Where the YAML says ???, and where it refers to such a key, the size's value then stands.
    """
    form = (config.model.get("kinds") or {}).get(str(config.task.kind)) or {}
    holder = form if form.get("shapes") else config.model
    for key, value in ((holder.get("shapes") or {}).get(size) or {}).items():
        OmegaConf.update(config.model, str(key), value)


def check_types(keys: Sequence[str], config: DictConfig, reference: DictConfig) -> None:
    """Values given inside a group of plain YAML have the type of the value that they replace."""
    for key in keys:
        _check_type(key, _value(key, config), _value(key, reference))


def differs(key: str, config: DictConfig, reference: DictConfig) -> bool:
    """Whether giving `key` made another cell than the default; a solved key is no longer solved."""
    form = (reference.model.get("kinds") or {}).get(str(reference.task.kind)) or {}
    solved = [(part.get("solve") or {}).get("key") for part in (form, reference.model)]
    if key.startswith("scenario.") or key.removeprefix("model.") in solved:
        return True  # the reference is composed for one scenario
    return bool(_value(key, config) != _value(key, reference))


def stated(key: str, config: DictConfig) -> str:
    """`key=value` in one spelling, however the user wrote the value; `~key` where it is gone."""
    value = _value(key, config)
    if value is ABSENT:
        return f"~{key}"
    if isinstance(value, bool) or value is None:
        return f"{key}={'null' if value is None else str(value).lower()}"
    return f"{key}={value}"


def _value(key: str, config: DictConfig) -> Any:
    try:
        return OmegaConf.select(config, key, throw_on_missing=False, default=ABSENT)
    except InterpolationResolutionError:  # it refers to what is not there: no type to hold to
        return ABSENT


def _check_type(key: str, value: object, default: object) -> None:
    """BadInput where a number, a truth value, a word or a mapping gives way to something else."""
    kind = type(default)
    if kind not in KINDS or value is ABSENT or (value is None and kind in NULL):
        return
    words, allowed = KINDS[kind]
    if type(value) not in allowed:
        raise BadInput(f"{key}={value} is of the wrong type; allowed: {words} {default}.")
