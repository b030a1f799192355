"""Pareto fronts, learning curves and rooflines, and what all figures share."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from bench.report.__main__ import main
from bench.report.plots.pareto import Point, front
from bench.report.plots.style import SETTINGS, canvas, logarithmic, place_labels, short
from bench.store import Record, Store
from tests.factories import make_record, quality, timing

SPEED = {"transformer": 9_000.0, "mamba": 4_000.0, "rwkv": 6_000.0}
SCORE = {"transformer": 2.2, "mamba": 2.0, "rwkv": 2.3}


def cells(model: str, seed: int = 0) -> list[Record]:
    """What the figures need of one model: speed, memory and cost, and quality with its curve."""
    train = make_record(
        model=model, scenario="train", seed=seed, timing=timing(),
        figures={"train_per_s": SPEED[model]}, memory={"peak_bytes": 1 << 24},
        cost={"flops": 10**9, "bytes_moved": 10**8},
    )  # fmt: skip
    curve = {
        "items": list(range(10, 110, 10)), "seconds": [0.1 * k for k in range(1, 11)],
        "loss": [3 - 0.1 * k for k in range(10)], "tokens_per_item": 256,
    }  # fmt: skip
    score = make_record(
        model=model, scenario="quality", seed=seed, curve=curve,
        quality=quality(value=SCORE[model]),
    )  # fmt: skip
    return [train, score]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    records = [record for model in SPEED for record in cells(model)]
    roof = make_record(model="machine", scenario="ceilings")
    roof["figures"] = {"matmul_flops_per_s": 2e10, "copy_bytes_per_s": 4e9}
    for record in [*records, roof]:
        Store(tmp_path).write(record)
    return tmp_path


def test_every_kind_is_drawn_from_records_alone(results: Path) -> None:
    assert main(["plot", str(results), "--format=svg"]) == 0
    names = {path.stem for path in (results / "plots").iterdir()}
    assert names >= {
        "pareto-text-train", "pareto-text-memory", "curves-text-items", "curves-text-seconds",
        "roofline-text-train",
    }  # fmt: skip


def test_a_pareto_figure_names_models_units_and_directions(results: Path) -> None:
    assert main(["plot", str(results), "--kind=pareto", "--format=svg"]) == 0
    svg = (results / "plots" / "pareto-text-train.svg").read_text()
    for words in (*SPEED, "training throughput (tokens/s)   better →", "bits per byte   better ↓"):
        assert f">{words}<" in svg


def test_a_roofline_states_the_share_of_what_is_attainable(results: Path) -> None:
    assert main(["plot", str(results), "--kind=roofline", "--format=svg"]) == 0
    svg = (results / "plots" / "roofline-text-train.svg").read_text()
    # 1e9 FLOPs over 1e8 bytes in 0.1 s: 10 GFLOP/s of min(20, 10 · 4) GFLOP/s.
    assert ">transformer 50 %<" in svg
    assert ">20 GFLOP/s, 4 GB/s<" in svg


def point(score: float, cost: float) -> Point:
    return Point("m", "m", score, score, score, cost, cost, cost, False)


@pytest.mark.parametrize("score_lower", [True, False])
@pytest.mark.parametrize("cost_lower", [True, False])
def test_the_front_is_what_no_point_dominates(score_lower: bool, cost_lower: bool) -> None:
    draws = random.Random(0)
    for _ in range(50):
        points = [point(draws.randrange(8), draws.randrange(8)) for _ in range(12)]

        def worth(p: Point) -> tuple[float, float]:
            return (-p.score if score_lower else p.score, -p.cost if cost_lower else p.cost)

        def dominated(p: Point, points: list[Point] = points) -> bool:
            return any(
                worth(q) != worth(p)
                and all(b >= a for a, b in zip(worth(p), worth(q), strict=True))
                for q in points
            )

        expected = {worth(p) for p in points if not dominated(p)}
        found = front(points, score_lower=score_lower, cost_lower=cost_lower)
        assert {worth(p) for p in found} == expected
        assert len(found) == len(expected)


def test_numbers_at_the_axes() -> None:
    values = [0.05, 1, 200, 2_000, 20_000, 300_000, 3e6, 5e9, 2e12]
    assert [short(v) for v in values] == [
        "0.05", "1", "200", "2000", "20k", "300k", "3M", "5G", "2T",
    ]  # fmt: skip


@pytest.mark.parametrize(("high", "least", "most"), [(3, 4, 8), (50, 4, 8), (1e6, 5, 9)])
def test_an_axis_has_ticks_enough_and_not_too_many(high: float, least: int, most: int) -> None:
    with canvas("title", "caption") as (_, axes):
        axes.plot([1, high], [1, 2])
        logarithmic(axes, "x")
        left, right = axes.get_xlim()
        ticks = [t for t in axes.xaxis.get_majorticklocs() if left <= t <= right]
    assert least <= len(ticks) <= most


def test_labels_keep_clear_of_each_other_and_of_the_points() -> None:
    crowd = [(1.0, 1.0), (1.01, 1.0), (1.0, 1.03), (2.0, 2.0)]
    with canvas("title", "caption") as (figure, axes):
        axes.plot(*np.array(crowd).T, "o")
        axes.set_xlim(0, 3)
        axes.set_ylim(0, 3)
        place_labels(axes, [(x, y, f"model {n}", "black") for n, (x, y) in enumerate(crowd)])
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == len(crowd)
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)
        radius = SETTINGS["lines.markersize"] / 72 * figure.dpi / 2
        for number, (x, y) in enumerate(axes.transData.transform(crowd)):
            assert not any(
                box.x0 - radius < x < box.x1 + radius and box.y0 - radius < y < box.y1 + radius
                for box in [boxes[number]]
            )


def test_a_damaged_curve_beside_an_old_record_is_named(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = make_record(scenario="quality", model="moe", quality=quality())
    Store(results).write(record, {"curve.json": b"{"})
    assert main(["plot", str(results), "--kind=curves"]) == 2
    assert "curve.json" in capsys.readouterr().err
