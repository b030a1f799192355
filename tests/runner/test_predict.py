"""What a cell will take is known from cells that took as long, of this machine alone."""

from typing import Any

import pytest

from bench.cell import Cell
from bench.machine.key import machine_key
from bench.predict import predict
from tests.factories import make_record

SUITE = {"items": {"language": 64}, "measure": {"max_seconds": 2.0}}


def cell(items: dict[str, int] | None = None, **changes: Any) -> Cell:
    part = {**make_record()["cell"], **changes}
    suite = {**SUITE, "items": items or SUITE["items"]}
    return Cell(part, {"suite": suite, "scenario": {}}, (), 0.0, {})


def known(asked: Cell, machine: str | None = None, **changes: Any) -> bool:
    """Whether the time of `asked` is that of a record of 7 s, which has `changes` in its cell."""
    record = make_record(machine=machine or machine_key(), config={"suite": SUITE}, wall_s=7.0)
    record["cell"] = {**record["cell"], **changes}  # type: ignore[typeddict-item]
    predict([asked], [record])
    assert asked.known == (asked.predicted_s == 7.0)
    return asked.known


def test_the_same_cell_is_known() -> None:
    assert known(cell())
    assert known(cell(overrides=["a=1", "b=2"]), overrides=["b=2", "a=1"])


@pytest.mark.parametrize("override", ["model.backbone.n_layers=48", "suite.items.text=512"])
def test_a_changed_model_is_not(override: str) -> None:
    assert not known(cell(overrides=[override]))
    assert not known(cell(), overrides=[override])


@pytest.mark.parametrize("override", ["lr=0.01", "optimizer.clip=2.0"])
def test_another_rate_takes_as_long(override: str) -> None:
    assert known(cell(overrides=[override]))


def test_another_machine_tells_nothing() -> None:
    assert not known(cell(), machine="another")


def test_items_are_those_of_the_task_else_of_its_kind() -> None:
    assert not known(cell(items={"language": 128}))
    assert known(cell(items={"text": 64, "language": 128}))
