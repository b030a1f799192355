"""A model under another objective than its family's own.

`configs/objective/NAME.yaml` has

    serves      kinds of tasks for which the objective is defined
    targets     classes that are models under it: a form that builds one is the family's own
    kinds       forms that any model may take, as those of a model's YAML (`kinds`)
    lr          rates by task for them

and a model's YAML, under `objectives`, the names of those that it takes beside its own, each with
changes to their forms by kind of task: {diffusion: {}} takes them as they stand. A change lies over
the form key by key, its `shapes` over those of the model; `refused` says why there is none. Beside
the kinds may stand `lr` and `tuned`, as in the model's own YAML.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.config import check_form
from bench.errors import BadInput, hint

Form = dict[str, Any]
NONE = "null"  # in place of a name: the family's own


@dataclass(frozen=True)
class Under:
    """What became of a cell's model under the objective that the cell names.

    `name` where that is not the family's `own`.
    """

    name: str | None = None
    own: str | None = None
    refused: str | None = None  # why the model has no such form
    expected: bool = True  # whether anyone would look for it


def lay(tree: dict[str, Any], known: Sequence[str]) -> Under:
    """Bring the model of any cell's configuration under the objective that it names.

    `tree` holds plain values, and `known` all names. Where the objective is not the family's own,
    the model's form for the task's kind is replaced, with its rates, of which none is tuned; where
    it is, or none was named, `tree` names none after that. BadInput where the model takes an
    objective that there is not.
    """
    model, objective, task = tree["model"], tree["objective"], tree["task"]
    taken = model.get("objectives") or {}
    if not isinstance(taken, dict) or not all(isinstance(v, dict) for v in taken.values()):
        raise BadInput(
            f"model={model.get('name')}: objectives is no mapping of objectives, each with its "
            "changes by kind of task; see configs/model."
        )
    for name in taken:
        if name not in known:
            raise BadInput(
                f"model={model.get('name')}: 'objectives.{name}' is no objective; allowed: "
                f"{', '.join(known)}.{hint(name, known)}"
            )
    if objective is None:
        return Under()
    name, kind = objective["name"], task["kind"]
    if is_own(model, objective, kind) or (kind in objective["serves"] and _of_it(model, objective)):
        tree["objective"] = None
        return Under(own=name)
    if (reason := refusal(model, objective, task)) is not None:
        expected = kind in objective["serves"] and name in taken
        return Under(name, refused=reason, expected=expected)
    change = taken[name]
    model["lr"] = {**(objective.get("lr") or {}), **(change.get("lr") or {})}
    model["tuned"] = change.get("tuned") or {}
    model["weight_decay"] = change.get("weight_decay") or {}
    model["kinds"] = {kind: _form(model, objective, kind)}
    check_form(model, kind)
    return Under(name)


def is_own(model: Mapping[str, Any], objective: Mapping[str, Any], kind: str) -> bool:
    """Whether the family's own form for a kind of task is under this objective."""
    form = (model.get("kinds") or {}).get(kind) or {}
    return (form.get("model") or {}).get("_target_") in objective["targets"]


def _of_it(model: Mapping[str, Any], objective: Mapping[str, Any]) -> bool:
    """Whether the family knows no other objective, though it has no form for every kind."""
    mine = any(is_own(model, objective, kind) for kind in model.get("kinds") or {})
    return mine and objective["name"] not in (model.get("objectives") or {})


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


def _form(model: Mapping[str, Any], objective: Mapping[str, Any], kind: str) -> Form | None:
    """The form that a model takes under an objective that is not its own, or None."""
    taken = model.get("objectives") or {}
    general = (objective.get("kinds") or {}).get(kind)
    if objective["name"] not in taken or general is None:
        return None
    change: Mapping[str, Any] = taken[objective["name"]].get(kind) or {}
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
        joined = isinstance(value, Mapping) and "_target_" not in value
        result[key] = _over(under, value) if joined and isinstance(under, Mapping) else value
    return result
