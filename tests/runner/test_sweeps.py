"""What is given on the command line makes cells and rows of its own."""

from pathlib import Path
from typing import Any

import pytest

from tests.runner.conftest import Command, python, records


def labels(document: dict[str, Any]) -> list[str]:
    return sorted(
        row["cells"][0]["text"]
        for block in document["table"]["blocks"]
        for row in block["rows"]
        if row["kind"] == "model"
    )


def test_sweeps(bench_here: Command) -> None:
    done = bench_here(
        "-m", "model=fake,other", "size=nano,tiny", "seed=range(0,2)", "scenario=prefill",
        "dtype=float32,bfloat16", "model.backbone.depth=1,2", "plan=true", "output=json",
    )  # fmt: skip
    assert done.code == 0, done.err
    cells = done.document["plan"]
    assert len(cells) == 2**5
    keys = ("model", "size", "seed", "dtype")
    assert len({tuple(cell[key] for key in keys) for cell in cells}) == 2**4


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("lr=0.01,2e-2", ["fake lr=0.01", "fake lr=0.02"]),
        ("model.backbone.depth=2,3", ["fake", "fake depth=3"]),  # 2 is the default
        ("model.backbone.width=8,16", ["fake width=16", "fake width=8"]),  # no longer solved for
    ],
)
def test_a_sweep_inside_a_group_has_a_row_a_point(
    bench_here: Command, results: Path, word: str, wanted: list[str]
) -> None:
    done = bench_here("model=fake", "suite.baselines=false", "output=json", word)
    assert done.code == 0, done.err
    assert labels(done.document) == wanted
    assert len(records(results)) == 4
    again = bench_here("model=fake", "suite.baselines=false", "output=json", word)
    assert labels(again.document) == wanted
    assert len(records(results)) == 4, "nothing is run twice"
    # The rows stand beside the default one when all records are read.
    bench_here("model=fake", "suite.baselines=false")
    table = python("-m", "bench.report", "table", str(results))
    assert table.code == 0, table.err
    first = [line.split("  ")[0].rstrip() for line in table.out.splitlines()]
    assert {*wanted, "fake"} <= set(first)


def test_what_is_given_inside_a_task_makes_a_block_of_its_own(bench_here: Command) -> None:
    done = bench_here("model=fake", "task.vocab_size=7,9", "output=json")
    titles = [block["title"] for block in done.document["table"]["blocks"]]
    assert len(titles) == 2
    assert sorted("task.vocab_size=9" in title for title in titles) == [False, True]


def test_other_training_items_make_another_row(bench_here: Command, results: Path) -> None:
    bench_here("model=fake", "suite.baselines=false")
    done = bench_here("model=other", "suite.items.fake=9", "suite.baselines=false", "output=json")
    assert labels(done.document) == ["other suite.items.fake=9"]
