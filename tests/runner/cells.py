"""The cells of a command line, and what the worker makes of one, without a process for it."""

from pathlib import Path
from typing import Any

import pytest

from bench import run, worker
from bench.cell import Cell
from bench.cli import Application

SMALL = ("suite=smoke", "threads=1", "suite.items.text=8", "suite.items.digits=8",
         "suite.test_items=4", "suite.validation_items=4")  # fmt: skip


def cells(*words: str) -> list[Cell]:
    """What the words ask for; BadInput where they are refused before anything starts."""
    found: list[Cell] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "execute", lambda cells, *_: found.extend(cells) or 0)
        Application([*SMALL, *words]).run("no.worker:starts")
    return found


def payload(folder: Path, *words: str) -> dict[str, Any]:
    """What the worker makes of the one cell of the words; BadInput where it refuses that."""
    [cell] = cells(*words)
    assert cell.unsupported is None
    return worker.run_cell({"config": cell.config, "overrides": cell.overrides}, folder)
