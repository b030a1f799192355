"""Rows of one backbone under several objectives: apart in the table, side by side in the grid."""

from pathlib import Path

import pytest

from bench.report.__main__ import main
from bench.report.commands.grid import sheets
from bench.report.compare.cells import name_of
from bench.report.table import build
from bench.store.record import Record
from tests.factories import make_record, quality


def record(model: str, value: float, objective: str = "", **more: object) -> Record:
    """The score of a model on digits."""
    found = quality(value=value, metric="accuracy", better="higher")
    found |= {"notes": {"readout": more.pop("readout", "head")}, "bound": False}
    made = make_record(model=model, task="digits", scenario="quality", quality=found)
    made["cell"]["kind"] = "classify"
    if objective:
        made["cell"]["objective"] = objective
    return made


def three() -> list[Record]:
    return [
        record("mamba", 0.9),
        record("mamba", 0.8, "diffusion", readout="bound"),
        record("mamba", 0.7, "autoregressive", readout="log p(x|y)"),
        record("dit", 0.6, readout="bound"),
    ]


def test_each_objective_is_a_row_of_its_own() -> None:
    (block,) = build(three(), [Path()]).blocks
    names = [row.cells[0].text for row in block.rows]
    assert names == ["mamba", "mamba under autoregressive", "mamba under diffusion", "dit"]
    assert [row.identity["under"] for row in block.rows] == ["", "autoregressive", "diffusion", ""]


def test_the_grid_has_backbones_down_and_objectives_across() -> None:
    records = three()
    refused = record("dit", 0.0, "autoregressive")
    refused.update(status="unsupported", reason="no such form")
    refused.pop("quality")
    (sheet,) = sheets([*records, refused], [Path()])
    assert sheet.columns == ["backbone", "autoregressive", "classification", "diffusion"]
    rows = [[str(entry).split(" ±")[0] for entry in row] for row in sheet.rows]
    assert rows == [["dit", "n/a", "—", "0.600"], ["mamba", "0.700", "0.900", "0.800"]]
    assert "dit, autoregressive: no such form" in sheet.notes


def test_what_an_exact_score_and_a_bound_say_of_their_objective() -> None:
    exact = make_record(model="mamba", scenario="quality", quality=quality())
    bound = make_record(model="diffusion", scenario="quality", quality=quality() | {"bound": True})
    (sheet,) = sheets([exact, bound], [Path()])
    assert sheet.columns == ["backbone", "autoregressive", "diffusion"]
    filled = [[entry.value is not None for entry in row[1:]] for row in sheet.rows]
    assert filled == [[False, True], [True, False]]


def test_a_comparison_tells_them_apart() -> None:
    names = [name_of(one) for one in three()[:2]]
    assert names[0] != names[1]
    assert "objective=diffusion" in names[1]
    assert "objective" not in names[0]


def test_no_score_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "records").mkdir()
    assert main(["grid", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
