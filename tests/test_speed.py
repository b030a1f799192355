"""The registry of the speed table's rows, rivals that are missing, and the table's place."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import mamba, mamba2, moe, rwkv7, speed, transformer
from benchmarks.ab import Turns
from benchmarks.rows import table
from benchmarks.rows.command import cases, make_parser
from benchmarks.rows.rivals import RIVALS
from benchmarks.rows.row import Result, Row, Setting
from benchmarks.rows.training import LAYERS, parameters_of
from models.objectives.autoregressive import LanguageModel

DOCS = Path(__file__).resolve().parents[1] / "docs" / "speed.md"
SCRIPTS = (mamba, mamba2, moe, rwkv7, transformer)


def options(*words: str) -> argparse.Namespace:
    return make_parser(speed.__doc__, speed.ROWS).parse_args(words)


def chosen(*words: str) -> list[tuple[str, int]]:
    return [(row.key, setting.length) for row, setting in cases(options(*words), speed.ROWS)]


def row_of(key: str) -> Row:
    return next(row for row in speed.ROWS if row.key == key)


def test_every_row_has_a_key_of_its_own_and_a_target() -> None:
    rows = [row for script in SCRIPTS for row in (*script.ROWS, *script.MORE)]
    assert len({row.key for row in rows}) == len(rows)
    assert all(row.target > 0 for row in rows)
    assert {row.key for row in speed.ROWS} < {row.key for row in rows}


def test_rows_are_taken_at_every_length_but_for_those_of_one() -> None:
    assert chosen("--rows", "mamba-loop", "mamba-slow-path") == [
        ("mamba-slow-path", 128),
        ("mamba-loop", 512),
        ("mamba-loop", 2048),
    ]
    assert chosen("--rows", "moe-mixtral", "--length", "64") == [("moe-mixtral", 64)]


def test_a_row_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options("--rows", "mamba")
    assert "mamba-loop" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "rival"),
    [
        ("mamba2-minimal", "--mamba-ssm PATH (github.com/state-spaces/mamba)"),
        ("rwkv7-fla", "--fla PATH (github.com/fla-org/flash-linear-attention)"),
        ("transformer-nanogpt", "--nanogpt PATH (github.com/karpathy/nanoGPT)"),
    ],
)
def test_a_rival_that_is_not_given_is_reported(key: str, rival: str) -> None:
    result = row_of(key).measure(Setting())
    assert result.problem == f"not measured: give {rival}"
    assert result.reached is None
    assert result.problem in str(result)
    assert result.as_json()["ratio"] is None


def test_a_folder_that_is_no_checkout_is_reported(tmp_path: Path) -> None:
    checkouts = {rival.option: tmp_path for rival in RIVALS}
    result = row_of("transformer-nanogpt").measure(Setting(checkouts=checkouts))
    assert result.problem is not None
    assert str(tmp_path / "model.py") in result.problem


def test_a_rival_that_breaks_is_a_failure_of_its_row(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("GPTConfig = None\n")
    result = row_of("transformer-nanogpt").measure(Setting(checkouts={"nanogpt": tmp_path}))
    assert result.problem is not None
    assert result.problem.startswith("failed: TypeError")


def result_of(ratio: float, share: float | None, ceiling: float | None = 0.85) -> Result:
    row = Row("r", "a row", 1.1, lambda _: pytest.fail("not called"), ceiling=ceiling)
    turns = Turns([1.0, 1.0], [ratio, ratio], [ratio, ratio])
    return Result(row, 512, "", turns, (1 << 20, 3 << 20), share)


def test_a_target_is_the_ratio_or_the_share_of_the_ceiling() -> None:
    assert result_of(1.2, None).reached
    assert result_of(1.0, 0.9).reached
    assert not result_of(1.0, 0.8).reached
    assert not result_of(1.0, 0.9, ceiling=None).reached


@pytest.mark.parametrize(("model", "layers"), [(mamba.mamba, LAYERS // 2), (rwkv7.rwkv7, LAYERS)])
def test_the_matched_transformer_has_the_parameters(
    model: Callable[[], LanguageModel], layers: int
) -> None:
    ours = model()
    theirs = transformer.as_large_as(ours, layers)
    assert parameters_of(theirs) == pytest.approx(parameters_of(ours), rel=0.005)
    assert theirs.backbone.d_model == ours.backbone.d_model


def test_the_table_replaces_the_one_of_its_machine(tmp_path: Path) -> None:
    path = tmp_path / "speed.md"
    path.write_text(f"before\n{table.BEGIN}\n{table.END}\nafter\n")
    old = table.markdown([result_of(1.0, 0.8)])
    new = table.markdown([result_of(1.0, 0.8), result_of(2.0, 0.8)])
    assert "**missed**" in new
    assert "1.0 / 3.0" in new
    assert len({len(line) for line in new.splitlines()}) == 1
    for machine in ("one", "other", "one"):
        table.write(path, machine, f"as of old\n\n{old}")
    first = path.read_text()
    table.write(path, "other", new)
    between = f"\n\n### one\n\nas of old\n\n{old}\n\n### other\n\n{new}\n\n"
    assert path.read_text() == f"before\n{table.BEGIN}{between}{table.END}\nafter\n"
    table.write(path, "other", f"as of old\n\n{old}")
    assert path.read_text() == first


def test_a_file_without_a_place_for_the_table_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "speed.md"
    path.write_text("no markers")
    with pytest.raises(SystemExit):
        speed.main(["--markdown", str(path)])
    assert table.BEGIN in capsys.readouterr().err


def test_the_document_has_a_place_for_the_table() -> None:
    table.check_place(DOCS)
    for row in speed.ROWS:
        assert row.name in DOCS.read_text(encoding="utf-8")
