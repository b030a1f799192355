"""Names of rows among their rivals."""

import itertools
from pathlib import Path

from bench.report.labels import label
from bench.report.select import Variant, select
from bench.report.table import build
from tests.factories import make_record, quality


def row(model: str = "mamba", size: str = "nano", **more: str) -> Variant:
    overrides = (more.pop("override"),) if more.get("override") else ()
    more.pop("override", None)
    made = {"backend": "torch", "compile": "", "kernel": "", **more}
    return Variant("mamba", model, size, made["backend"], made["compile"], overrides,
                   made["kernel"])  # fmt: skip


def test_a_row_alone_is_its_model() -> None:
    assert label(row(), [row()]) == "mamba"
    assert label(row(), [row(), row("mamba2")]) == "mamba"


def test_no_two_rows_share_a_name() -> None:
    rows = [
        row(model, size, backend=backend, compile=mode, override=override, kernel=kernel)
        for model, size, backend, mode, override, kernel in itertools.product(
            ("mamba", "mamba2"), ("nano", "tiny"), ("torch", "fla"), ("", "default", "max"),
            ("", "model.backbone.d_state=8"), ("scan", "step"),
        )
    ]  # fmt: skip
    assert len({label(one, rows) for one in rows}) == len(rows)
    for one, other in itertools.combinations(rows, 2):
        assert label(one, [one, other]) != label(other, [one, other])


def test_the_table_uses_these_names() -> None:
    records = [
        make_record(scenario="quality", model="mamba", size=size, quality=quality())
        for size in ("nano", "tiny")
    ]
    rows = build(records, [Path()]).blocks[0].rows
    (selection,) = select(records)
    expected = {label(one, selection.current) for one in selection.current}
    assert {one.cells[0].text for one in rows} == expected == {"mamba/nano", "mamba/tiny"}
