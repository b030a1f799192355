"""What the fork server imports before the first cell, so that no cell does.

A cell starts at once then, and what it imports does not count as its memory.
"""

from collections.abc import Iterable

from bench.cell import Cell
from bench.targets import OWN_PREFIXES, targets

ENERGY = "zeus.monitor"


def preloads(cells: Iterable[Cell], *, energy: bool = False) -> list[str]:
    """Modules that the cells want, without repeats.

    Those that their YAML names, those of the project that their targets lie in, and their
    scenarios. What every cell needs, torch among it, comes with the worker's own module. The user's
    modules are left to the cell: one that cannot be imported must cost that cell alone.
    """
    names: list[str] = []
    for cell in cells:
        if cell.unsupported:
            continue
        modules = [str(target).rpartition(".")[0] for _, target in targets(cell.config)]
        own = [name for name in modules if name.startswith(OWN_PREFIXES)]
        names += [*cell.preload, *own]
        names += [f"bench.scenarios.{cell.part['scenario']}"] if own else []
    return [*dict.fromkeys(names), *([ENERGY] if energy else [])]
