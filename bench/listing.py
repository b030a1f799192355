"""`list`: every model, task, scenario and suite, with a line each."""

from collections.abc import Mapping
from typing import Any, Protocol

from bench.errors import one_line

GROUPS = ("model", "objective", "task", "scenario", "suite", "size", "match", "device")


class Source(Protocol):
    """What the listing needs of the application."""

    def options(self, group: str) -> list[str]: ...
    def read(self, group: str, name: str) -> Mapping[str, Any]: ...


def listing(source: Source) -> int:
    """Print the list; a file that cannot be read is named in its own line."""
    for group in GROUPS:
        print(f"{group}:")
        names = source.options(group)
        width = max(map(len, names), default=0)
        for name in names:
            try:
                text = _line(group, source.read(group, name))
            except Exception as error:  # whatever is wrong with one file, the list goes on
                text = f"cannot be read: {one_line(str(error))}"
            print(f"  {name:<{width}}  {text}")
    return 0


def _line(group: str, node: Mapping[str, Any]) -> str:
    text = one_line(str(node.get("description", "")))
    if group == "model":
        kinds = node.get("kinds") or {}
        backend = node.get("backend")
        return f"{text}  [{', '.join(kinds)}{f'; {backend}' if backend else ''}]"
    if group == "objective":
        return f"{text}  [{', '.join(node.get('serves') or ())}]"
    if group == "task":
        return f"{text}  [{node.get('kind')}]"
    if group == "suite":
        return f"{text}  [version {node.get('version')}]"
    return text
