"""Who is best, and who cannot be told from the best, from records whose answer is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.report.layout import Table
from bench.report.noise import t_half
from bench.report.table import build
from bench.store import Record, Store
from tests.factories import items_file, make_record, quality
from tests.report.reading import cell, row, shown


def scored(model: str, items: Any, task: str = "text", seed: int = 0, **more: Any) -> Any:
    """A quality record whose value is the mean of `items`, and its artefact."""
    items = np.asarray(items, dtype=np.float64)
    section = quality(task, items.mean(), items.std(ddof=1) / len(items) ** 0.5, **more)
    record = make_record(model=model, task=task, scenario="quality", seed=seed, quality=section)
    return record, {"items.npy": items_file(items)}


def built(root: Path, made: list[tuple[Record, dict[str, bytes]]], **options: Any) -> Table:
    store = Store(root)
    for record, artefacts in made:
        store.write(record, artefacts)
    return build(store.read_all()[0], store.artefacts, **options)


def test_bold_follows_the_paired_difference(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shared = 2 + rng.normal(0, 0.5, 400)  # items differ far more than the models do
    jitter = rng.normal(0, 0.1, 400)
    jitter -= jitter.mean()
    made = [
        scored("best", shared),
        scored("inside", shared + 0.005 + jitter),  # 1.96 se = 0.0098
        scored("outside", shared + 0.015 + jitter),  # unpaired it would be inside: 0.069
    ]
    (block,) = built(tmp_path, made).blocks
    assert [r.cells[0].text for r in block.rows] == ["best", "inside", "outside"]
    assert [r.cells[1].bold for r in block.rows] == [True, True, False]
    assert any("paired difference over test items" in n.text for n in block.notes)


def test_without_items_the_intervals_decide() -> None:
    made = [
        make_record(model=m, scenario="quality", quality=quality(value=v, stderr=0.01))
        for m, v in (("best", 2.0), ("near", 2.02), ("far", 2.04))
    ]
    (block,) = build(made).blocks
    # 1.96 · √2 · 0.01 = 0.0277
    assert [r.cells[1].bold for r in block.rows] == [True, True, False]
    assert any("unpaired" in n.text for n in block.notes)


def test_forged_items_are_not_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for record, artefacts in (scored("a", [1.0, 2.0, 3.0]), scored("b", [1.1, 2.1, 3.1])):
        store.write(record, artefacts)
    records, _ = store.read_all()
    (store.artefacts / records[0]["id"] / "items.npy").write_bytes(items_file([9.0, 9.0, 9.0]))
    (block,) = build(records, store.artefacts).blocks
    assert any("differs from the hash" in n.text for n in block.notes)


def test_three_seeds_are_paired_by_seed() -> None:
    values = {"best": [2.00, 2.10, 2.20], "near": [2.02, 2.10, 2.21], "far": [2.05, 2.151, 2.249]}
    made = [
        make_record(
            model=m, scenario="quality", seed=s, quality=quality(value=v) | {"stderr": None}
        )
        for m, numbers in values.items()
        for s, v in enumerate(numbers)
    ]
    (block,) = build(made).blocks
    # near: mean 0.010, t half 0.0248; far: 0.050 ± 0.0025; unpaired both would be inside
    assert [r.cells[1].bold for r in block.rows] == [True, True, False]
    measure = cell(block, "best", "score").measures[0]
    low, high = stats.t.interval(0.95, 2, loc=2.1, scale=stats.sem(values["best"]))
    assert (measure.low, measure.high) == pytest.approx((low, high))
    assert (measure.over, measure.n) == ("seeds", 3)
    assert any("t interval over seeds (n = 3)" in n.text for n in block.notes)


def test_the_t_interval_is_scipys() -> None:
    values = [1.0, 1.5, 1.7, 2.9]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert t_half(values) == pytest.approx((high - low) / 2)


def test_one_seed_has_an_interval_over_items() -> None:
    (block,) = build([make_record(scenario="quality", quality=quality(value=2, stderr=0.1))]).blocks
    assert cell(block, "transformer", "score").text == "2.000 ± 0.196"
    assert any("test items (n = 200) of one seed" in n.text for n in block.notes)


def test_where_items_are_not_at_hand_their_standard_errors_widen_the_interval() -> None:
    made = [
        make_record(scenario="quality", seed=s, quality=quality(value=v, stderr=0.1))
        for s, v in enumerate((2.0, 2.01, 2.02, 2.01, 2.0))
    ]
    (block,) = build(made).blocks
    measure = cell(block, "transformer", "score").measures[0]
    assert (measure.over, measure.n) == ("seeds and items", 5)
    assert measure.high == pytest.approx(2.008 + 0.197, abs=2e-3)
    assert not cell(block, "transformer", "score").marks  # five seeds are not provisional


def test_bounds_are_marked_and_ranked_apart() -> None:
    made = [
        make_record(model="exact-1", scenario="quality", quality=quality(value=2.0)),
        make_record(model="exact-2", scenario="quality", quality=quality(value=3.0)),
        make_record(model="diffusion", scenario="quality", quality=quality(value=1.0, bound=True)),
    ]
    (block,) = build(made).blocks
    assert [r.cells[0].text for r in block.rows] == ["exact-1", "exact-2", "diffusion"]
    assert cell(block, "diffusion", "score").text.startswith("≤1.000")
    assert [r.cells[1].bold for r in block.rows] == [True, False, False]
    assert row(block, "diffusion").rule_above
    assert "≤: an upper bound" in shown(build(made))


def test_classification_is_ranked_by_readout_and_higher_is_better() -> None:
    made = [
        make_record(
            model=model, task="digits", scenario="quality",
            quality=quality("digits", value, 0.001, secondary={"nll": 0.5},
                            notes={"readout": readout, "view": "sequence", "forwards": passes}),
        )
        for model, value, readout, passes in (
            ("a", 0.90, "head", "1"), ("b", 0.95, "head", "1"), ("c", 0.99, "bound", "320"),
        )
    ]  # fmt: skip
    (block,) = build(made).blocks
    assert [r.cells[0].text for r in block.rows] == ["b", "a", "c"]
    assert [r.cells[1].bold for r in block.rows] == [True, False, False]
    assert cell(block, "c", "readout_secondary").text == "bound"
    assert cell(block, "c", "forwards_secondary").text == "320"
    assert cell(block, "a", "nll_secondary").text == "0.500"
