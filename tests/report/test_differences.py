"""What is better and what is within noise, from scores whose truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from bench.report.__main__ import main
from bench.report.differences import best_first, difference, differences, leaders
from bench.report.intervals import crossed, half_width
from bench.report.noise import BOTH, ITEMS, SEEDS, Score
from bench.report.table import build
from bench.store import Store
from tests.factories import items_file, make_record, quality
from tests.report.reading import cell, note


def row(scores: Any, seeds: Any = None, *, better: str = "lower", items: bool = True) -> Score:
    """A row from scores (S, N)."""
    scores = np.asarray(scores, dtype=np.float64)
    seeds = range(len(scores)) if seeds is None else seeds
    by_seed = dict(zip(seeds, scores, strict=True))
    return Score(
        "bits_per_byte", better, False, float(scores.mean()), None, "", len(scores),
        {seed: float(one.mean()) for seed, one in by_seed.items()}, by_seed if items else {},
    )  # fmt: skip


def rows(draw: np.random.Generator, count: int, seeds: int, items: int = 40) -> dict[str, Score]:
    """Rows of one truth on the same items: what differs is chance, of seeds and of items."""
    shared = draw.normal(0, 1, (1, items))
    return {
        str(n): row(shared + draw.normal(0, 0.05, (seeds, 1)) + draw.normal(0, 0.2, (1, items))
                    + draw.normal(0, 0.1, (seeds, items)))
        for n in range(count)
    }  # fmt: skip


def test_pairs_of_seeds_and_items_are_what_counts() -> None:
    draw = np.random.default_rng(0)
    shared = draw.normal(0, 1, (1, 200)) + draw.normal(0, 0.3, (5, 1))  # of items and data orders
    a = row(shared + draw.normal(0, 0.01, (5, 200)))
    b = row(shared + 0.01 + draw.normal(0, 0.01, (5, 200)))
    found = difference(a, b)
    assert (found.rule, found.seeds) == (BOTH, 5)
    assert found.value == pytest.approx(a.value - b.value)
    expected = half_width(crossed(np.stack([a.items[s] - b.items[s] for s in range(5)])))
    assert found.half == pytest.approx(expected)
    assert found.p < 1e-4
    assert half_width(crossed(np.stack(list(a.items.values())))) > 20 * expected  # unpaired


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_difference_is_covered(seeds: int) -> None:
    draw = np.random.default_rng(seeds)
    inside = 0
    for _ in range(300):
        found = difference(*rows(draw, 2, seeds).values())
        assert found.half is not None
        inside += abs(found.value) <= found.half
    assert inside / 300 > 0.92


def test_among_equals_hardly_ever_one_is_better() -> None:
    draw = np.random.default_rng(1)
    groups = [differences(rows(draw, 5, 5)).values() for _ in range(200)]
    false = [any(one.adjusted <= 0.05 for one in group) for group in groups]
    plain = [any(one.p <= 0.05 for one in group) for group in groups]
    assert np.mean(false) <= 0.08 < np.mean(plain)  # 0.05 and two standard errors of 200 groups


def test_leaders_are_the_best_and_those_that_cannot_be_told_from_it() -> None:
    draw = np.random.default_rng(2)
    found = rows(draw, 3, 5)
    for name, shift in (("0", 0.0), ("1", 0.01), ("2", 1.0)):
        for seed in found[name].seeds:
            found[name].items[seed] += shift
            found[name].seeds[seed] += shift
        found[name].value += shift
    best, rules = leaders(found)
    assert "2" not in best
    assert best >= {next(iter(best_first(found)))}
    assert len(best) == 2
    assert rules == {BOTH}


def test_rows_of_other_seeds_are_paired_by_items_alone() -> None:
    draw = np.random.default_rng(3)
    shared = draw.normal(0, 1, (1, 100))
    a = row(shared + draw.normal(0, 0.02, (3, 1)) + draw.normal(0, 0.01, (3, 100)), (0, 1, 2))
    b = row(shared + draw.normal(0, 0.02, (4, 1)) + draw.normal(0, 0.01, (4, 100)), (5, 6, 7, 8))
    found = difference(a, b)
    assert (found.rule, found.seeds) == ("other seeds", 3)
    assert found.half is not None
    assert 0.02 < found.half < 0.2


def test_one_seed_knows_of_items_alone() -> None:
    draw = np.random.default_rng(4)
    a, b = rows(draw, 2, 1).values()
    found = difference(a, b)
    assert (found.rule, found.seeds) == (ITEMS, 1)
    apart = a.items[0] - b.items[0]
    error = float(apart.std(ddof=1)) / len(apart) ** 0.5
    assert found.half == pytest.approx(2.0227 * error, rel=1e-3)  # t of 39


def test_without_items_seeds_are_what_there_is() -> None:
    a, b = (row([[v] for v in values], items=False) for values in ((1.0, 2.0), (1.1, 2.3)))
    found = difference(a, b)
    assert (found.rule, found.seeds) == (SEEDS, 2)
    assert found.value == pytest.approx(-0.2)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    draw = np.random.default_rng(5)
    noise = draw.normal(0, 0.5, 100)
    for model, value in (("mamba", 2.0), ("rwkv", 2.001), ("resnet", 2.4)):
        for seed in range(3):
            items = value + noise + draw.normal(0, 0.02, 100) + draw.normal(0, 0.004)
            section = quality(value=float(items.mean()), stderr=0.05)
            record = make_record(model=model, scenario="quality", seed=seed, quality=section)
            Store(tmp_path).write(record, {"items.npy": items_file(items)})
    return tmp_path


def test_the_command_says_it_in_words(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = results / "differences.csv"
    assert main(["differences", str(results), "--csv", str(file)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "within noise provisional: 3 seeds" in said
    assert "mamba is better by" in said or "rwkv is better by" in said
    assert "Holm's correction over all pairs of the group (3), at 5%" in said
    found = pandas.read_csv(file)
    assert len(found) == 2
    resnet = found[found.row == "resnet"].iloc[0]
    assert resnet.low < resnet.difference < resnet.high
    assert resnet.difference == pytest.approx(0.4, abs=0.02)
    assert (resnet.seeds, resnet.objective) == (3, "exact")
    assert resnet["p (Holm)"] < 0.05 < found[found.row != "resnet"].iloc[0]["p (Holm)"]


def test_every_pair_is_there_where_asked_for(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = results / "differences.csv"
    assert main(["differences", str(results), "--pairs", "--csv", str(file)]) == 0
    assert len(pandas.read_csv(file)) == 3
    capsys.readouterr()


def test_stars_of_the_table_agree_with_the_words(results: Path) -> None:
    store = Store(results)
    (block,) = build(store.read_all()[0], store.artefacts).blocks
    stars = {r.cells[0].text for r in block.rows if r.cells[1].bold}
    assert stars == {"mamba", "rwkv"}
    assert "provisional: 3 seeds" in note(block, cell(block, "resnet", "score"))
    assert any("over seeds (n = 3) and test items" in n.text for n in block.notes)
    measure = cell(block, "resnet", "score").measures[0]
    assert (measure.over, measure.n) == (BOTH, 3)


def test_nothing_to_compare_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store(tmp_path).write(make_record(scenario="quality", quality=quality()))
    assert main(["differences", str(tmp_path)]) == 2
    assert "scenario=quality of two models" in capsys.readouterr().err
