"""The context sweep in sheets and figures, from made-up records."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from bench.report.__main__ import main
from bench.report.plots.style import look, spread
from bench.store import Store
from tests.factories import make_record

LENGTHS = [128 * 2**k for k in range(6)]


def swept(model: str, b: float, c: float, state: int, grows: bool) -> Any:
    points = []
    for T in LENGTHS:
        read, step = 1e-3 + b * T + c * T * T, 1e-3
        points.append({
            "at": T, "status": "ok", "valid": True,
            "prefill_s": read, "prefill_ci_low_s": read * 0.98, "prefill_ci_high_s": read * 1.02,
            "step_s": step, "step_ci_low_s": step * 0.98, "step_ci_high_s": step * 1.02,
            "state_bytes": state * T if grows else state, "peak_bytes": 1 << 20,
        })  # fmt: skip
    points.append({"at": 8192, "status": "skipped", "reason": "about 60 s needed, 3 s left"})
    made = make_record(model=model, scenario="context")
    made["sweep"] = {"axis": "context", "batch": 1, "largest": LENGTHS[-1], "points": points}
    return made


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for record in (
        swept("transformer", 1e-6, 1e-8, 96, True), swept("mamba", 1e-5, 0, 4096, False)
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
    assert look("transformer", "").color.lower() in svg.lower()
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


def test_every_family_has_a_look_of_its_own() -> None:
    names = ["transformer", "moe", "mamba", "mamba2", "rwkv", "resnet", "diffusion", "dit"]
    assert len({look(name, name) for name in names}) == len(names)
    assert look("mine", "transformer") == look("transformer", "transformer")
    assert look("mine", "mine") == look("mine", "mine")


def test_labels_are_moved_apart_as_little_as_possible() -> None:
    import numpy as np

    assert list(spread(np.array([0.0, 5.0]), 1.0)) == [0.0, 5.0]
    assert list(spread(np.array([1.0, 1.0, 9.0]), 2.0)) == [0.0, 2.0, 9.0]
