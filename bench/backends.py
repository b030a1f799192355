"""Which implementations of a model there are, which one a cell means, and whether it can run.

A model's YAML names its own (`backend`) and the others (`backends`): by name a mapping with

    adopt       the class that puts a library's implementation in the place of ours
    needs       modules that have to be importable
    install     the command that brings them
    kinds       kinds of tasks it serves; none given: all of the model's
    scenarios   what it can do of what the model can; none given: all
    fastest     devices on which `backend=auto` takes it where it is installed; of several the first
    dtypes      types of numbers for which auto does; none given: all. What it can run in at all the
                class of `adopt` says: a cell may name it for the others
"""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from bench.errors import BadInput, hint

AUTO, ALL = "auto", "all"
NAMES = ("torch", "mamba_ssm", "transformers", "rwkv", "fla", "timm", "diffusers")


def own(model: Mapping[str, Any], kind: str) -> str:
    """The implementation that a model's YAML itself is."""
    form = (model.get("kinds") or {}).get(kind) or {}
    return str(form.get("backend") or model.get("backend") or "torch")


def others(model: Mapping[str, Any], kind: str) -> dict[str, Mapping[str, Any]]:
    """The other implementations that serve a kind of task."""
    return {
        name: entry
        for name, entry in (model.get("backends") or {}).items()
        if kind in (entry.get("kinds") or [kind])
    }


def chosen(model: Mapping[str, Any], kind: str, device: str, dtype: str, asked: str) -> list[str]:
    """The backends that `asked` means for this model, the model's own before others."""
    there = [own(model, kind), *others(model, kind)]
    if asked == ALL:
        return there
    if asked == AUTO:
        return [_fastest(model, kind, device, dtype)]
    return [asked]


def _fastest(model: Mapping[str, Any], kind: str, device: str, dtype: str) -> str:
    for name, entry in others(model, kind).items():
        if device in (entry.get("fastest") or ()) and _unfit(entry, dtype) is None:
            return name
    return own(model, kind)


def fallback(
    model: Mapping[str, Any], kind: str, device: str, dtype: str, asked: str
) -> str | None:
    """What `backend=auto` would have taken, and why it did not."""
    if asked != AUTO:
        return None
    runs = _fastest(model, kind, device, dtype)
    for name, entry in others(model, kind).items():
        if name == runs:
            return None
        if device in (entry.get("fastest") or ()) and (reason := _unfit(entry, dtype)):
            return f"{name}, the fastest on {device}, {reason}: {runs} runs instead"
    return None


def _unfit(entry: Mapping[str, Any], dtype: str) -> str | None:
    """Why auto leaves an implementation alone, or None."""
    if missing := lacking(entry):
        return f"is not installed ({', '.join(missing)}; {entry['install']})"
    types = entry.get("dtypes") or (dtype,)
    return None if dtype in types else f"is taken for {' and '.join(types)}, not for {dtype}"


def lacking(entry: Mapping[str, Any]) -> list[str]:
    """Modules that a backend needs and that cannot be found."""
    return [name for name in entry.get("needs") or () if importlib.util.find_spec(name) is None]


def refusal(model: Mapping[str, Any], kind: str, name: str, scenario: str) -> str | None:
    """Why a cell cannot be by this backend, or None."""
    there, where = others(model, kind), f"model={model.get('name')}"
    if name == own(model, kind):
        return None
    if name not in there:
        known = ", ".join([own(model, kind), *there])
        return f"{where} has no backend={name} for tasks of kind '{kind}'; it has: {known}"
    if missing := lacking(there[name]):
        cure = there[name]["install"]
        return f"backend={name}: {', '.join(missing)} is not installed; {cure}"
    can: Sequence[str] | None = there[name].get("scenarios")
    if can and scenario not in can:
        return f"{where} by backend={name} cannot {scenario}; it can: {', '.join(can)}"
    return None


def check_backend(value: object) -> str:
    """One value of the axis `backend`."""
    text = str(value).strip()
    names = (AUTO, ALL, *NAMES)
    if text not in names:
        raise BadInput(
            f"backend={text} is unknown; allowed: {', '.join(names)}.{hint(text, names)}"
        )
    return text
