"""Pareto fronts, learning curves and rooflines, and what all figures share."""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.report.__main__ import main
from bench.report.compare import floors
from bench.report.plots import curves
from bench.report.plots.palette import FAMILIES, Named
from bench.report.plots.pareto import Point, front, off_scale
from bench.report.plots.placing import Label, place_labels
from bench.report.plots.roofline import interval
from bench.report.plots.style import SETTINGS, canvas, logarithmic, short
from bench.report.roofline import RooflinePoint
from bench.store import Record, Store
from tests.factories import make_record, quality, timing
from tests.report.figures import MODELS, write_all
from tests.report.history.commits import levels, step, write

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


@dataclass(frozen=True)
class Drawn:
    """A figure and its words, read while its settings hold, on which the ticks depend."""

    figure: Figure
    words: list[Text]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Drawn]:
    """Every kind of figure by its name, as it is before it is written to a file."""
    folder = write_all(tmp_path_factory.mktemp("all"))
    drawn: dict[str, Drawn] = {}

    def keep(figure: Figure, path: Path, **_: object) -> None:
        figure.draw_without_rendering()
        drawn[path.stem] = Drawn(figure, words(figure))

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # no repository: the order of commits is that of time
        patch.setattr(Figure, "savefig", keep)
        assert main(["plot", str(folder), "--format=svg"]) == 0
    return drawn


def words(figure: Figure) -> list[Text]:
    """The texts that are seen; matplotlib keeps ticks beyond the axes, too."""
    found = {id(text): text for text in figure.findobj(Text)}
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            seen = {id(text) for text in (axis.label, *shown)}
            for text in axis.findobj(Text):
                if id(text) not in seen:
                    found.pop(id(text), None)
    return [text for text in found.values() if text.get_visible() and text.get_text()]


def test_all_kinds_are_drawn(figures: dict[str, Drawn]) -> None:
    assert set(figures) == {
        "pareto-text-train", "pareto-text-memory", "curves-text-items", "curves-text-seconds",
        "curves-text-flops", "curves-text-checks-items", "curves-text-checks-seconds",
        "curves-text-checks-flops", "target-text", "roofline-text-train", "roofline-text-prefill",
        "context-read", "context-write",
        "context-state", "history-text-decode-time-of-a-call",
        "history-text-decode-time-of-a-call-2",
    }  # fmt: skip
    for drawn in figures.values():
        width, height = drawn.figure.get_size_inches()
        assert width / height == pytest.approx(16 / 9, rel=1e-3)


def test_all_letters_can_be_read_from_the_last_row(figures: dict[str, Drawn]) -> None:
    for name, drawn in figures.items():
        for text in drawn.words:
            raised = 0.7 if "^" in text.get_text() else 1.0  # matplotlib's factor of superscripts
            assert float(text.get_fontsize()) * raised >= 14 - 1e-9, (name, text.get_text())


def test_no_words_are_cut_or_cover_others(figures: dict[str, Drawn]) -> None:
    for name, drawn in figures.items():
        placed = [(t.get_text(), Text.get_window_extent(t)) for t in drawn.words]
        assert len(placed) > 10
        for text, box in placed:
            assert box.x0 > -1, (name, text)
            assert box.y0 > -1, (name, text)
            assert box.x1 < drawn.figure.bbox.x1 + 1, (name, text)
            assert box.y1 < drawn.figure.bbox.y1 + 1, (name, text)
        for (text, box), (other, second) in itertools.combinations(placed, 2):
            assert not box.padded(-2).overlaps(second), (name, text, other)


def test_two_sizes_of_a_family_are_told_apart_in_every_figure(figures: dict[str, Drawn]) -> None:
    for name, drawn in figures.items():
        texts = [text for text in drawn.words if text.get_text().startswith("mamba/")]
        if name.endswith("-2"):
            continue  # the second slide has the other families
        assert [t.get_text().split(" ")[0] for t in texts].count("mamba/nano") == 1, name
        assert [t.get_text().split(" ")[0] for t in texts].count("mamba/tiny") == 1, name
        assert {text.get_color() for text in texts} == {FAMILIES["mamba"][0]}, name
        lines = [line for axes in drawn.figure.axes for line in axes.get_lines()
                 if line.get_color() == FAMILIES["mamba"][0]]  # fmt: skip
        styles = {(line.get_marker(), line.get_markerfacecolor(), line.get_linestyle())
                  for line in lines if line.get_alpha() != 0.3}  # fmt: skip
        assert len(styles) >= 2, name


def test_points_of_a_roofline_have_the_interval_of_their_time(figures: dict[str, Drawn]) -> None:
    record = make_record(
        timing={**timing(), "median_s": 0.1, "ci_low_s": 0.08, "ci_high_s": 0.125},
        cost={"flops": 10**9, "bytes_moved": 10**8},
    )  # fmt: skip
    point_of = RooflinePoint(record, 10.0, 1e10, 2e10, "compute")
    assert interval(point_of) == pytest.approx((8e9, 1.25e10))
    del record["timing"]["ci_low_s"], record["timing"]["ci_high_s"]
    assert interval(point_of) == (1e10, 1e10)
    (axes,) = figures["roofline-text-train"].figure.axes
    bars = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    assert len(bars) == len(MODELS)
    for bar in bars:
        ((_, low), (_, high)) = bar.lines[2][0].get_segments()[0]
        (middle,) = np.asarray(bar.lines[0].get_ydata(), dtype=float)
        assert (low / middle, high / middle) == pytest.approx((1 / 1.08, 1 / 0.9))


def test_a_history_has_four_panels_a_slide_and_no_colour_but_of_families(
    figures: dict[str, Drawn],
) -> None:
    pages = [drawn for name, drawn in figures.items() if name.startswith("history")]
    assert [len(drawn.figure.axes) for drawn in pages] == [4, 4]
    shades = {FAMILIES[family][0] for family, *_ in MODELS.values()}
    for drawn in pages:
        for axes in drawn.figure.axes:
            for line in axes.get_lines():
                level = [int(to_hex(line.get_color())[at : at + 2], 16) for at in (1, 3, 5)]
                assert len(set(level)) == 1 or line.get_color() in shades
        said = [text.get_text() for text in drawn.words]
        assert sum("▼ -" in text and "faster" in text for text in said) == 4


def test_a_history_judges_with_the_floors_beside_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # no repository: the order of commits is that of time
    names = [f"{number:040x}" for number in range(16)]
    folder = write(
        tmp_path, [step(n, v) for n, v in zip(names, levels(0, {8: 1.1}, 16), strict=True)]
    )
    given = ["plot", str(folder), "--kind=history", "--format=svg"]
    figure = folder / "plots" / "history-text-train-time-of-a-call.svg"
    assert main(given) == 0
    assert "slower" in figure.read_text(encoding="utf-8")
    floors.write(folder / floors.NOISE, "machine-1", {floors.APART: {"time of a call": 0.5}})
    assert main(given) == 0
    assert "slower" not in figure.read_text(encoding="utf-8")


def test_a_score_far_from_all_others_is_off_the_scale(figures: dict[str, Drawn]) -> None:
    crowd = [point(score, 1) for score in (2.0, 2.1, 2.2)]
    assert off_scale([*crowd, point(2.85, 1)], score_lower=True) == point(2.85, 1)
    assert off_scale([*crowd, point(2.7, 1)], score_lower=True) is None
    assert off_scale([*crowd, point(2.85, 1)], score_lower=False) is None
    assert off_scale([*crowd, point(1.0, 1)], score_lower=False) == point(1.0, 1)
    assert off_scale(crowd[:2], score_lower=True) is None
    (axes,) = figures["pareto-text-train"].figure.axes
    assert "≤ diffusion/nano: 3.53, off the scale ↑" in [t.get_text() for t in axes.texts]
    assert axes.get_ylim()[1] < 2.5


def test_sizes_do_not_overwrite_each_other_in_learning_curves(figures: dict[str, Drawn]) -> None:
    (axes,) = figures["curves-text-items"].figure.axes
    thick = [line for line in axes.get_lines() if line.get_alpha() is None]
    assert len(thick) == len(MODELS)


@pytest.mark.parametrize(
    ("cost", "label", "last"),
    [("items", "tokens read", 10_000 * 256), ("seconds", "seconds of training", 8e6 / 29_000),
     ("flops", "FLOPs of training", 10_000 * 5e11 / 29_000)],
)  # fmt: skip
def test_curves_are_drawn_against_each_cost(
    figures: dict[str, Drawn], cost: str, label: str, last: float
) -> None:
    for part in ("", "-checks"):
        (axes,) = figures[f"curves-text{part}-{cost}"].figure.axes
        assert axes.get_xlabel() == label
        color = FAMILIES["transformer"][0]
        (line,) = [x for x in axes.get_lines() if x.get_color() == color and x.get_alpha() is None]
        assert np.asarray(line.get_xdata(), dtype=float)[-1] == pytest.approx(last)


def test_what_did_not_reach_the_target_is_drawn_as_such(figures: dict[str, Drawn]) -> None:
    (axes,) = figures["target-text"].figure.axes
    assert len(axes.patches) == len(MODELS)
    hollow = [bar for bar in axes.patches if bar.get_hatch()]
    # The last check stands at 1.0625 of the score, and the target is 2.3.
    missed = sum(1.0625 * score > 2.3 for _, score, *_ in MODELS.values())
    assert len(hollow) == missed == [t.get_text() for t in axes.texts].count("not reached")
    assert 0 < missed < len(MODELS)


def point(score: float, cost: float) -> Point:
    return Point(Named("m", "m", "m"), score, score, score, cost, cost, cost, False)


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
        place_labels(axes, [Label(x, y, f"model {n}", "black") for n, (x, y) in enumerate(crowd)])
        figure.draw_without_rendering()
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without its leading line
        assert len(boxes) == len(crowd)
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)
        radius = SETTINGS["lines.markersize"] / 72 * figure.dpi / 2
        for x, y in axes.transData.transform(crowd):
            for box in boxes:
                beside = x < box.x0 - radius or x > box.x1 + radius
                assert beside or y < box.y0 - radius or y > box.y1 + radius


def test_labels_avoid_lines_where_there_is_room() -> None:
    with canvas("title", "caption") as (figure, axes):
        axes.set(xlim=(0, 2), ylim=(0, 2))
        above = np.array([0.0, 2.0]), np.array([1.1, 1.1])
        place_labels(axes, [Label(1, 1, "model", "#000000")], [above])
        figure.draw_without_rendering()
        (box,) = (Text.get_window_extent(text) for text in axes.texts)
        assert box.y1 < axes.transData.transform((1, 1.1))[1]


def test_a_damaged_curve_beside_an_old_record_is_named(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = make_record(scenario="quality", model="moe", quality=quality())
    Store(results).write(record, {"curve.json": b"{"})
    assert main(["plot", str(results), "--kind=curves"]) == 2
    assert "curve.json" in capsys.readouterr().err


def test_the_mean_of_trainings_that_the_clock_ended() -> None:
    """Of y = x and y = 3 x, at other numbers of points: y = 2 x where both are known."""
    one, other = (np.linspace(0, 10, n) for n in (11, 6))
    x, y = curves._mean([(one, one), (other + 1, 3 * (other + 1))])
    assert (x[0], x[-1], len(x)) == (1, 10, 6)
    assert y == pytest.approx(2 * x)
    x, y = curves._mean([(one, one), (one + 2, 3 * one)])
    assert x == pytest.approx(one + 1)
    assert y == pytest.approx(2 * one)
