"""How the table is printed: nothing cut off, whatever a record lacks."""

import copy
import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.report.__main__ import main
from bench.report.markdown import to_markdown
from bench.report.table import build, to_json
from bench.report.terminal import WIDTH, show, to_rich
from bench.store import validate
from bench.store.record import REQUIRED_CELL
from tests.factories import make_record, quality
from tests.report.reading import shown
from tests.report.sample import sample_records, sample_store


def test_the_sample_fits_120_columns_with_nothing_cut_off(tmp_path: Path) -> None:
    store = sample_store(tmp_path)
    table = build(store.read_all()[0], store.artefacts)
    assert len(table.blocks) == 3
    text = shown(table)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    assert "bits per byte" in text
    for block in table.blocks:
        for found in block.rows:
            for one in found.cells[1:]:
                assert one.text in text
    assert "Test @ 2.0GHz, 2 cores, 8 GiB" in text
    assert "2026-11-24" in text


def test_long_names_wrap_instead_of_being_cut(tmp_path: Path) -> None:
    made = [r for r, _ in sample_records() if r["cell"]["task"] == "generate"]
    for record in made:
        if record["cell"]["model"] == "mamba2":
            record["cell"]["model"] = "mamba2-with-a-very-long-name-of-a-user"
    text = shown(build(made))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    flat = "".join(line.split(" ")[0] for line in text.splitlines() if line[:1] != " ")
    assert "mamba2-with-a-very-long-name-of-a-user" in flat


def test_markdown_has_the_rows_of_the_terminal(tmp_path: Path) -> None:
    store = sample_store(tmp_path)
    table = build(store.read_all()[0], store.artefacts)
    blocks = to_markdown(table).split("### ")[1:]
    for block, text in zip(table.blocks, blocks, strict=True):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len(lines) - 2 == to_rich(block).row_count == len(block.rows)
        assert {line.replace("\\|", "").count("|") for line in lines} == {len(block.columns) + 1}


def test_emphasis_reaches_the_terminal() -> None:
    made = [
        make_record(model="fast", figures={"train_per_s": 2e3}),
        make_record(model="slow", figures={"train_per_s": 1e3}),
        make_record(model="baseline", scenario="baselines",
                    baselines=[{"name": "plain", "quality": quality(value=5.0, stderr=None)}]),
    ]  # fmt: skip
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="standard")
    show(build(made), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    (fast,) = [line for line in lines if "fast" in line]
    (slow,) = [line for line in lines if "slow" in line]
    (plain,) = [line for line in lines if "plain" in line]
    assert re.search(r"\x1b\[1m *2\.00", fast)
    assert "\x1b[1m" not in slow
    assert "\x1b[2mplain" in plain


def test_a_star_marks_the_best_where_nothing_can_be_bold() -> None:
    made = [
        make_record(model="fast", figures={"train_per_s": 2e3}),
        make_record(model="fast", scenario="quality", quality=quality(value=2.0)),
        make_record(model="slow", figures={"train_per_s": 1e3}),
        make_record(model="slow", scenario="quality", quality=quality(value=3.0)),
    ]
    text = shown(build(made))
    (fast,) = [line for line in text.splitlines() if line.startswith("fast")]
    (slow,) = [line for line in text.splitlines() if line.startswith("slow")]
    assert "*2.00" in fast
    assert "*" not in slow
    assert "\n*: the best of its objective" in text
    assert "Bold" not in text


def test_whatever_a_record_lacks_the_table_is_printed() -> None:
    """Every section and every key of it in turn is null: valid, so it must be readable."""
    shown_models = ("rwkv", "baseline")
    text = [r for r, _ in sample_records() if r["cell"]["task"] == "text"]
    made = [r for r in text if r["cell"]["model"] in shown_models]
    whole: Any = made
    for place, record in enumerate(whole):
        for name, section in record.items():
            if name in ("schema", "id", "created", "status", "key", "config"):
                continue
            changed = copy.deepcopy(whole)
            if name != "cell":
                changed[place][name] = None
                shown(build([validate(r) for r in changed]))
            for key in section if isinstance(section, dict) else ():
                if name == "cell" and key in REQUIRED_CELL:
                    continue
                changed[place][name] = {**section, key: None}
                shown(build([validate(r) for r in changed]))


def test_nothing_at_all() -> None:
    assert "no records" in shown(build([]))


def test_the_document_is_json(tmp_path: Path) -> None:
    import json

    store = sample_store(tmp_path)
    records, _ = store.read_all()
    document = json.loads(json.dumps(to_json(build(records, store.artefacts)), allow_nan=False))
    assert [block["identity"]["task"] for block in document["blocks"]] == [
        "text", "digits", "generate",
    ]  # fmt: skip


def test_an_interrupt_of_a_report_is_one_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.report.commands.table.read", interrupted)
    assert main(["table"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
