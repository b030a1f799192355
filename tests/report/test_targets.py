"""Time to target, from checks whose answer is known."""

import math
from pathlib import Path
from typing import Any

import pandas
import pytest

from bench.errors import BadInput
from bench.report.__main__ import main
from bench.report.table import build
from bench.report.targets import median, parse, taken
from bench.report.tidy import to_frame
from bench.store import Record, Store
from tests.factories import make_record, quality
from tests.report.reading import cell, note

EARLIER = Path(__file__).resolve().parents[2] / "results" / "published-standard"


def checked(
    model: str, values: list[float], *, seed: int = 0, pace: float = 1.0,
    target: float | None = 2.0, flops: float | None = 5e6, task: str = "text", **more: Any,
) -> Record:  # fmt: skip
    """A training that was checked every 100 items and `pace` seconds."""
    count = len(values)
    curve = {
        "items": [100 * count], "seconds": [pace * count], "loss": [1.0],
        "validation": {
            "items": [100 * (n + 1) for n in range(count)],
            "seconds": [pace * (n + 1) for n in range(count)],
            "value": values,
        },
        "tokens_per_item": 256 if task == "text" else None, "flops_per_item": flops,
    }  # fmt: skip
    section = quality(task, values[-1], target=target, **more)
    return make_record(
        model=model, task=task, scenario="quality", seed=seed, quality=section, curve=curve
    )


def test_the_first_check_that_meets_it_counts() -> None:
    found = taken(checked("a", [3.0, 2.2, 1.9, 2.1, 1.8], pace=1.5), 2.0)
    assert found is not None
    assert (found.seconds, found.items, found.tokens) == (4.5, 300, 300 * 256)
    assert (found.flops, found.trained, found.checks) == (300 * 5e6, 7.5, 5)


def test_higher_is_better_where_it_is() -> None:
    record = checked("a", [0.5, 0.9, 0.95], task="digits", target=0.9)
    found = taken(record, 0.9)
    assert found is not None
    assert (found.seconds, found.tokens) == (2.0, None)
    missed = taken(record, 0.99)
    assert missed is not None
    assert not missed.reached


def test_not_reached_and_not_known_are_two_things() -> None:
    missed = taken(checked("a", [3.0, 2.5]), 2.0)
    assert missed is not None
    assert math.isinf(missed.seconds)
    assert missed.trained == 2.0
    assert taken(make_record(scenario="quality", quality=quality()), 2.0) is None
    unknown = taken(checked("a", [1.0], flops=None), 2.0)
    assert unknown is not None
    assert unknown.flops is None


def test_seeds_that_did_not_reach_it_lie_beyond_all_others() -> None:
    assert median([1.0, math.inf, 2.0]) == 2.0
    assert median([1.0, math.inf]) == math.inf
    assert median([1.0, None]) is None


def made() -> list[Record]:
    return [
        *(checked("fast", [1.9, 1.8], seed=s) for s in range(5)),
        *(checked("slow", values, seed=s, pace=4.0) for s, values in
          enumerate([[2.5, 1.9], [2.6, 1.9], [2.7, 2.1]])),
        *(checked("never", [2.5, 2.3], seed=s, pace=3.0) for s in range(5)),
        make_record(model="old", scenario="quality", quality=quality()),
    ]  # fmt: skip


def test_the_table_has_a_column() -> None:
    (block,) = build(made()).blocks
    head = {column.key: column.title for column in block.columns}
    assert head["target"] == "to 2 s ↓"
    texts = {name: cell(block, name, "target").text for name in ("fast", "slow", "never", "old")}
    assert texts == {"fast": "1.0", "slow": "8.0", "never": ">6.0", "old": "—"}
    slow = note(block, cell(block, "slow", "target"))
    assert "target reached by 2 of 3 seeds" in slow
    assert "provisional: 3 seeds" in slow
    notes = " ".join(n.text for n in block.notes)
    assert "bits per byte of at most 2, median over seeds" in notes
    assert "not reached in these seconds" in notes


def test_values_and_not_reached_stand_in_tidy_form() -> None:
    frame = to_frame(build(made()))
    found = frame[frame.column == "target"].set_index(["model", "metric"])
    assert found.loc[("fast", "to_target_tokens"), "value"] == 100 * 256
    assert found.loc[("fast", "to_target_flops"), "value"] == 100 * 5e6
    assert found.loc[("never", "to_target_seconds"), "label"] == "not reached"
    assert pandas.isna(found.loc[("never", "to_target_seconds"), "value"])
    assert found.loc[("slow", "to_target_reached"), ["value", "n"]].tolist() == [2, 3]


def test_a_target_can_be_given() -> None:
    (block,) = build(made(), targets={"text": 1.85}).blocks
    assert cell(block, "fast", "target").text == "2.0"
    (other,) = build(made(), targets={"digits": 0.5}).blocks
    assert cell(other, "fast", "target").text == "1.0"
    assert parse(["2.0", "code=1.9"]) == {"": 2.0, "code": 1.9}
    for text in ("code", "code=", "code=nan", ""):
        with pytest.raises(BadInput, match=r"--target=.* is no score"):
            parse([text])


def test_records_without_checks_or_target_have_no_column() -> None:
    old = [make_record(model=m, scenario="quality", quality=quality()) for m in ("a", "b")]
    (block,) = build(old).blocks
    assert "target" not in [column.key for column in block.columns]
    (none,) = build([checked("a", [1.0], target=None)]).blocks
    assert "target" not in [column.key for column in none.columns]


def test_a_target_is_no_other_cell() -> None:
    """The same training under another target stands in the same block and row."""
    first, second = checked("a", [1.9], seed=0), checked("a", [1.9], seed=1, target=1.8)
    second["cell"]["overrides"] = ["task.target=1.8"]
    second["created"] = "2026-11-25T10:00:00+00:00"
    (block,) = build([first, second]).blocks
    assert len(block.rows) == 1
    assert cell(block, "a", "target").text == ">1.0"  # by the newest


def test_the_command_has_tokens_and_flops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in made():
        Store(tmp_path).write(record)
    file = tmp_path / "target.csv"
    assert main(["target", str(tmp_path), "--csv", str(file)]) == 0
    said = capsys.readouterr().out
    assert "not reached" in said
    assert "2 of 3" in said
    found = pandas.read_csv(file).set_index("row")
    assert list(found.index) == ["fast", "slow", "never"]
    assert float(found.loc["slow", "FLOPs"]) == 200 * 5e6
    assert found.loc["never", "s"] == "not reached"
    assert main(["target", str(tmp_path), "--target=text=1.5"]) == 0
    assert "0 of 5" in capsys.readouterr().out


def test_earlier_records_have_no_time_to_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["target", str(EARLIER), "--target=2"]) == 2
    assert "no record has scores on validation" in capsys.readouterr().err
