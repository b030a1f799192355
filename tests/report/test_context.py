"""The context sweep in sheets and figures, from made-up records."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from bench.report.__main__ import main
from bench.report.plots.palette import FAMILIES
from bench.report.plots.placing import spread
from bench.store import Store
from tests.factories import make_record
from tests.report.contexts import point, swept

LENGTHS = [128 * 2**k for k in range(6)]


def context(
    model: str, b: float, c: float, state: int, grows: bool, size: str = "nano"
) -> Any:  # fmt: skip
    points = []
    for T in LENGTHS:
        read, step = 1e-3 + b * T + c * T * T, 1e-3
        points.append(point(T, read, step, state * T if grows else state, spread=0.02))
    points.append({"at": 8192, "status": "skipped", "reason": "about 60 s needed, 3 s left"})
    return swept(points, model=model, size=size)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for record in (
        context("transformer", 1e-6, 1e-8, 96, True), context("mamba", 1e-5, 0, 4096, False)
    ):  # fmt: skip
        Store(tmp_path).write(record)
    return tmp_path


def test_the_sheets_say_what_grows(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["context", str(results)]) == 0
    lines = capsys.readouterr().out.splitlines()
    fits = {line.split()[0]: line for line in lines if "linear" in line or "quadratic" in line}
    assert "quadratic" in fits["transformer"]
    assert "grows" in fits["transformer"]
    assert "linear" in fits["mamba"]
    assert "constant" in fits["mamba"]
    (crossing,) = [
        line for line in lines if line.startswith(("transformer, mamba", "mamba, trans"))
    ]
    assert " 900 " in crossing  # 1e-6 + 1e-8 T = 1e-5
    assert any("8192: skipped, about 60 s needed" in line for line in lines)


def test_figures_in_all_formats(results: Path) -> None:
    assert main(["plot", str(results), "--kind=context"]) == 0
    names = [f"context-{kind}.{ending}" for kind in ("read", "state", "write")
             for ending in ("pdf", "png", "svg")]  # fmt: skip
    assert sorted(path.name for path in (results / "plots").iterdir()) == names
    height, width, _ = imread(results / "plots" / "context-read.png").shape
    assert width / height == pytest.approx(16 / 9, rel=2e-3)
    svg = (results / "plots" / "context-read.svg").read_text()
    assert "time to read it (ms)" in svg
    assert FAMILIES["transformer"][0].lower() in svg.lower()
    first = (results / "plots" / "context-read.svg").read_bytes()
    assert main(["plot", str(results), "--kind=context", "--format=svg"]) == 0
    assert (results / "plots" / "context-read.svg").read_bytes() == first


def test_nothing_to_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store(tmp_path).write(make_record())
    assert main(["plot", str(tmp_path), "--kind=context"]) == 2
    assert "context: not drawn, no record has a context sweep" in capsys.readouterr().err
    assert main(["context", str(tmp_path)]) == 2
    assert "suite=context" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--kind=pie"], "--kind=pie is not known"), (["--format=gif"], "--format=gif is not known")],
)
def test_bad_input(
    results: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert main(["plot", str(results), *flags]) == 2
    assert words in capsys.readouterr().err


def test_two_sizes_of_a_model_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for size, b in (("nano", 1e-6), ("tiny", 1e-5)):
        Store(tmp_path).write(context("mamba", b, 0, 4096, False, size=size))
    assert main(["context", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "mamba/nano, mamba/tiny" in out or "mamba/tiny, mamba/nano" in out
    assert "mamba/tiny at 8192: skipped" in out
    assert main(["plot", str(tmp_path), "--kind=context", "--format=svg"]) == 0
    for name in ("read", "write", "state"):
        svg = (tmp_path / "plots" / f"context-{name}.svg").read_text()
        assert "mamba/nano" in svg
        assert "mamba/tiny" in svg
        assert "stroke-dasharray" in svg.split('<g id="matplotlib.axis_2">')[1]


def test_exponents_with_their_intervals(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["context", str(results)]) == 0
    sheet = capsys.readouterr().out.split("Exponents of T")[1].splitlines()
    rows = {line.split()[0]: line.split() for line in sheet if "to 4096" in line}
    # read, written and state, each with its half interval: three lengths of the six are fitted
    assert rows["mamba"][1] == "0.95"  # 1e-3 + 1e-5 T from 1024 to 4096
    assert rows["mamba"][3:7] == ["0.00", "0.00", "0.00", "0.00"]
    assert rows["transformer"][5:7] == ["1.00", "0.00"]
    assert float(rows["transformer"][1]) == pytest.approx(1.89, abs=0.005)
    assert "1024 to 4096" in " ".join(rows["mamba"])


def test_figures_have_an_exponent_for_time_and_state(results: Path) -> None:
    assert main(["plot", str(results), "--kind=context", "--format=svg"]) == 0
    for name, power in (("read", "0.95"), ("write", "0.00"), ("state", "1.00")):
        svg = (results / "plots" / f"context-{name}.svg").read_text()
        assert f"{power} \\pm" in svg, name  # the source of the label stands in a comment


def test_a_sweep_without_a_point_is_no_figure(results: Path) -> None:
    empty = context("rwkv", 1e-6, 0, 1, False)
    empty["sweep"]["points"] = empty["sweep"]["points"][-1:]
    Store(results).write(empty)
    assert main(["plot", str(results), "--kind=context", "--format=svg"]) == 0
    assert "mamba" in (results / "plots" / "context-read.svg").read_text()


def test_labels_are_moved_apart_as_little_as_possible() -> None:
    import numpy as np

    assert list(spread(np.array([0.0, 5.0]), 1.0)) == [0.0, 5.0]
    assert list(spread(np.array([1.0, 1.0, 9.0]), 2.0)) == [0.0, 2.0, 9.0]
    assert list(spread(np.array([0.0, 0.0]), 0.2, 0, 1)) == [0.0, 0.2]
    assert list(spread(np.array([0.9, 1.4]), 0.2, 0, 1)) == pytest.approx([0.8, 1.0])
