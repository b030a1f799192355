"""The files and the command: same content everywhere, bad input in one sentence."""

import re
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from bench.report import latex, markdown
from bench.report.__main__ import main
from bench.report.latex import to_latex
from bench.report.table import build
from bench.report.tidy import to_frame
from bench.store import Store
from tests.factories import make_record, quality
from tests.report.sample import sample_store

ROOT = Path(__file__).resolve().parents[2]


def test_csv_and_parquet_hold_the_raw_numbers(tmp_path: Path) -> None:
    store = sample_store(tmp_path / "results")
    assert main(["table", str(store.root), "--output", str(tmp_path / "out")]) == 0
    frame = to_frame(build(store.read_all()[0], store.artefacts))
    parquet = pandas.read_parquet(tmp_path / "out" / "table.parquet")
    pandas.testing.assert_frame_equal(parquet, frame)
    csv = pandas.read_csv(
        tmp_path / "out" / "table.csv", dtype={n: str(t) for n, t in frame.dtypes.items()}
    )
    pandas.testing.assert_frame_equal(csv, frame, check_dtype=False)
    records = {r["id"]: r for r in store.read_all()[0]}
    speeds = frame[frame["metric"] == "train_per_s"]
    assert len(speeds) == 18
    for line in speeds.to_dict("records"):
        assert line["value"] == records[line["records"]]["figures"]["train_per_s"]
    failed = frame[frame["status"] == "failed"]
    assert set(failed["model"]) == {"moe"}
    assert failed["value"].isna().all()
    assert failed["reason"].str.contains("memory_limit_gib").all()


def test_latex_is_balanced_and_escaped() -> None:
    awkward = r"100% of A_B & C#1 {x} ~ ^ \ $5 <tag> | é ↑ λ 中"
    made = [
        make_record(model="a_b&c%", scenario="quality", quality=quality(bound=True)),
        make_record(model="x", scenario="quality", status="failed", reason=awkward),
    ]
    text = to_latex(build(made))
    assert text.isascii()
    assert r"a\_b\&c\%" in text
    escaped = latex.escape(awkward)
    assert escaped in text
    assert escaped == (
        r"100\% of A\_B \& C\#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"\$5 \textless{}tag\textgreater{} \textbar{} \'e $\uparrow$ ? ?"
    )
    body = re.sub(r"\\[{}]", "", text)
    assert body.count("{") == body.count("}")
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    assert re.findall(r"\\begin{(\w+)}", text) == ["table", "tabular"]
    assert re.findall(r"\\end{(\w+)}", text) == ["tabular", "table"]
    (block,) = build(made).blocks
    inside = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
    rows = [line for line in inside.splitlines() if line.endswith(r"\\")]
    assert len(rows) == len(block.rows)
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {len(block.columns) - 1}


def test_markdown_escapes() -> None:
    assert markdown.escape("a|b*c_d\n<e>") == r"a\|b\*c\_d \<e\>"


def test_corrupt_records_do_not_stop_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    store.write(make_record(figures={"train_per_s": 1234.0}))
    (store.records / "broken.json").write_text('{"schema": 1, "id"')
    assert main(["table", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "1.23" in out
    assert err.count("\n") == 1
    assert "broken.json" in err
    assert "truncated" in err
    assert {p.name for p in tmp_path.glob("table.*")} == {
        "table.csv", "table.parquet", "table.md", "table.tex",
    }  # fmt: skip


@pytest.mark.parametrize("content", [None, "empty", "corrupt"])
def test_nothing_to_read_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    path = tmp_path / "results"
    if content is not None:
        (path / "records").mkdir(parents=True)
    if content == "corrupt":
        (path / "records" / "a.json").write_text("{")
    assert main(["table", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"'{path}'" in err
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err


def test_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store(tmp_path).write(make_record(figures={"train_per_s": 1.0}))
    blocker = tmp_path / "file"
    blocker.write_text("")
    assert main(["table", str(tmp_path), "--output", str(blocker / "out")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_command_loads_no_torch(tmp_path: Path) -> None:
    sample_store(tmp_path)
    code = (
        "import sys; from bench.report.__main__ import main;"
        f"code = main(['table', {str(tmp_path)!r}]);"
        "bad = [m for m in ('torch', 'hydra', 'models') if m in sys.modules]; sys.exit(bad or code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
