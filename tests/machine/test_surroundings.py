"""What is said of cells beside which others were busy."""

from typing import Any

from bench.machine.surroundings import disturbed


def record(*others: tuple[str, float]) -> dict[str, Any]:
    return {"environment": {"busy": [{"name": name, "cores": cores} for name, cores in others]}}


def test_cells_beside_busy_processes_are_counted() -> None:
    said = disturbed([record(("git", 0.3), ("make", 0.3)), record(("cc", 0.4)), record(("x", 1.9))])
    assert said is not None
    assert said.startswith("other processes (git, make, x) kept half a core or more busy during 2 ")


def test_nothing_is_said_of_an_idle_machine() -> None:
    assert disturbed([record(), record(("cc", 0.4)), {}, {"environment": {"busy": None}}]) is None
