"""A model under another objective than its family's own.

`configs/objective/NAME.yaml` has

    serves      kinds of tasks for which the objective is defined
    targets     classes that are models under it: a form that builds one is the family's own
    kinds       forms that any model may take, as those of a model's YAML (`kinds`)
    lr          rates by task for them

and a model's YAML, under `objectives`, the names of those that it takes beside its own, each with
changes to their forms by kind of task: {diffusion: {}} takes them as they stand. A change lies over
the form key by key, its `shapes` over those of the model; `refused` says why there is none.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.errors import BadInput, hint

Form = dict[str, Any]
NONE = "null"  # in place of a name: the family's own


@dataclass(frozen=True)
class Under:
    """A cell's configuration, its model in the form that the objective asks for.

    `config.objective` is left where it is `name`, an objective that is not the family's `own`.
    """

    config: DictConfig
    name: str | None = None
    own: str | None = None
    refused: str | None = None  # why the model has no such form
    expected: bool = True  # whether anyone would look for it


def under(config: DictConfig, known: Sequence[str]) -> Under:
    """The configuration of any cell under the objective that it names; `known` are their names.

    BadInput where the model takes one that there is not.
    """
    model = plain(config.model)
    for name in model.get("objectives") or {}:
        if name not in known:
            raise BadInput(
                f"model={model.get('name')}: 'objectives.{name}' is no objective; allowed: "
                f"{', '.join(known)}.{hint(name, known)}"
            )
    if config.objective is None:
        return Under(config)
    objective, task = plain(config.objective), plain(config.task)
    name, kind = objective["name"], task["kind"]
    if is_own(model, objective, kind) or (
        kind in objective["serves"]
        and any(is_own(model, objective, other) for other in model.get("kinds") or {})
        and name not in (model.get("objectives") or {})
    ):
        config = _opened(config)
        config.objective = None
        return Under(config, own=name)
    reason = refusal(model, objective, task)
    if reason is not None:
        expected = kind in objective["serves"] and takes(model, objective)
        return Under(config, name, refused=reason, expected=expected)
    return Under(_crossed(config, model, objective), name)


def is_own(model: Mapping[str, Any], objective: Mapping[str, Any], kind: str) -> bool:
    """Whether the family's own form for a kind of task is under this objective."""
    form = (model.get("kinds") or {}).get(kind) or {}
    return (form.get("model") or {}).get("_target_") in objective["targets"]


def takes(model: Mapping[str, Any], objective: Mapping[str, Any]) -> bool:
    """Whether a model is, for some kind of task, under this objective, its own or not."""
    mine = any(is_own(model, objective, kind) for kind in model.get("kinds") or {})
    return mine or objective["name"] in (model.get("objectives") or {})


def refusal(
    model: Mapping[str, Any], objective: Mapping[str, Any], task: Mapping[str, Any]
) -> str | None:
    """Why a model cannot be under this objective on a task, or None where it can."""
    kind, name = task["kind"], objective["name"]
    where = f"objective={name}"
    if kind not in objective["serves"]:
        serves = ", ".join(objective["serves"])
        return (
            f"{where} is not defined for tasks of kind '{kind}' (task={task['name']}); it is for: "
            f"{serves}"
        )
    if is_own(model, objective, kind):
        return None
    if model.get("pretrained"):
        return f"model.pretrained was trained under its family's own objective; leave out {where}"
    change = (model.get("objectives") or {}).get(name, {}).get(kind) or {}
    if reason := change.get("refused"):
        return f"model={model['name']} on task={task['name']} has no form under {where}: {reason}"
    if _form(model, objective, kind) is None:
        return (
            f"model={model['name']} has no form under {where} for tasks of kind '{kind}' "
            f"(task={task['name']})"
        )
    return None


def _crossed(config: DictConfig, model: dict[str, Any], objective: Mapping[str, Any]) -> DictConfig:
    """A copy with the model's form replaced, and its rates, of which none is tuned."""
    config, kind = _opened(config), str(config.task.kind)
    change = model["objectives"][objective["name"]] or {}
    model["lr"] = {**(objective.get("lr") or {}), **(change.get("lr") or {})}
    model["tuned"] = change.get("tuned") or {}
    model["kinds"] = {kind: _form(model, objective, kind)}
    config.model = model
    return config


def _opened(config: DictConfig) -> DictConfig:
    """A copy that takes new keys."""
    config = copy.deepcopy(config)
    OmegaConf.set_struct(config, False)
    return config


def plain(node: DictConfig) -> dict[str, Any]:
    """A group as it stands in its file, its interpolations not resolved."""
    found = OmegaConf.to_container(node, resolve=False)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _form(model: Mapping[str, Any], objective: Mapping[str, Any], kind: str) -> Form | None:
    """The form that a model takes under an objective that is not its own, or None."""
    taken = model.get("objectives") or {}
    general = (objective.get("kinds") or {}).get(kind)
    if objective["name"] not in taken or general is None:
        return None
    change: Mapping[str, Any] = (taken[objective["name"]] or {}).get(kind) or {}
    form = _over(general, change)
    if model.get("shapes") and change.get("shapes"):
        form["shapes"] = _over(model["shapes"], change["shapes"])
    return form


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with another laid over it, mapping by mapping.

    A mapping with a `_target_` of its own replaces what it lies on.
    """
    result = dict(copy.deepcopy(below))
    for key, value in above.items():
        under = result.get(key)
        joined = isinstance(value, Mapping) and isinstance(under, Mapping)
        result[key] = _over(under, value) if joined and "_target_" not in value else value
    return result
