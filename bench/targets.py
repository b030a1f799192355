"""Which classes a configuration may name: refused before anything is imported.

Targets of this project (`models.`, `bench.tasks.`) must be a class or function written in the
module that they name, so that no path through an imported library is taken.
"""

import ast
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.constants import ROOT
from bench.errors import BadInput, hint

OWN_PREFIXES = ("models", "bench.tasks")


def targets(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every `_target_` below `node` with the key under which it stands."""
    if isinstance(node, dict):
        for key, value in node.items():
            where = f"{path}.{key}" if path else str(key)
            if key == "_target_":
                yield where, value
            else:
                yield from targets(value, where)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from targets(value, f"{path}[{index}]")


def check_targets(config: Any, allow: Sequence[str] = ()) -> None:
    """Raise BadInput for a `_target_` that is not allowed; imports nothing."""
    allowed = tuple(entry.strip().rstrip(".") for entry in allow)
    for entry in allowed:
        if not all(part.isidentifier() for part in entry.split(".")):
            raise BadInput(
                f"allow_targets={entry or repr(entry)} is no package name; "
                "allowed: dotted names such as mypkg or mypkg.models."
            )
    for key, target in targets(config):
        if not isinstance(target, str) or not _within(target, (*OWN_PREFIXES, *allowed)):
            listed = ", ".join(f"{prefix}." for prefix in (*OWN_PREFIXES, *allowed))
            raise BadInput(
                f"{key}={target} is refused; allowed are targets that begin with {listed} "
                "(allow_targets=[package] allows yours)."
            )
        if not _within(target, allowed):
            _check_own(key, target)


def _within(target: str, prefixes: Sequence[str]) -> bool:
    return any(target.startswith(prefix + ".") for prefix in prefixes)


def _check_own(key: str, target: str) -> None:
    module, _, name = target.rpartition(".")
    source = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    if not source.is_file():
        raise BadInput(f"{key}={target} is refused: there is no module {module}.")
    names = _defined(source)
    if name not in names:
        raise BadInput(
            f"{key}={target} is refused: {module} defines no {name}; "
            f"it defines: {', '.join(sorted(names)) or 'nothing'}.{hint(name, names)}"
        )


@functools.cache
def _defined(source: Path) -> frozenset[str]:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef)
    return frozenset(
        node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")
    )
