"""Cells become records whatever happens to them, and are not run again."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.run import not_finite
from tests.runner.conftest import ROOT, Command, arguments, environment, python, records


def start(results: Path, *words: str, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.runner.command", *arguments(results, *words)],
        cwd=ROOT,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_suite_becomes_records(bench: Command, results: Path) -> None:
    done = bench()
    assert done.code == 0, done.err
    made = records(results)
    cells = Counter((r["cell"]["model"], r["cell"]["scenario"]) for r in made)
    assert cells == Counter(
        [(m, s) for m in ("fake", "other") for s in ("prefill", "train")]
        + [("baseline", "baselines")]
    )
    first = next(r for r in made if r["cell"]["model"] == "fake")
    assert first["versions"] == {"suite": 2, "task": 3}
    assert first["config"]["model"]["backbone"]["width"] == 8
    assert list(first["config"]["model"]["kinds"]) == ["language"]
    assert "results" not in first["config"]
    assert {a["name"] for a in first["artefacts"]} == {"curve.json", "log.txt"}
    assert first["environment"]["packages"]["torch"]
    assert first["environment"]["allocator"]["MALLOC_MMAP_MAX_"] == "0"
    assert first["code"]["source_sha256"]
    assert first["wall_s"] > 0
    # Plain lines where the output is no terminal, cheap scenarios first.
    lines = [line for line in done.out.splitlines() if line.startswith("[")]
    assert len(lines) == 5
    assert lines[0].startswith("[1/5] fake · fake · prefill · nano · seed 0   123 tokens/s")
    assert "said by the worker" not in done.out + done.err


def test_finished_cells_are_not_run_again(bench: Command, results: Path) -> None:
    bench("model=fake")
    done = bench("model=fake")
    assert (done.code, len(records(results))) == (0, 3)
    assert "3 of 3 cells are finished already" in done.out
    bench("model=fake", "suite.measure.min_samples=2")
    assert len(records(results)) == 6
    bench("model=fake", "force=true")
    assert len(records(results)) == 9


@pytest.mark.parametrize(
    ("behaviour", "reason", "more"),
    [
        ("raise", "RuntimeError: the fake model broke over two lines", []),
        ("crash", "SIGABRT", []),
        ("oom", "SIGKILL", []),
        ("exit", "code 3", []),
        ("slow", "time-out: not finished after 1 s", ["timeout=1"]),
        ("infinite", "figures.prefill_per_s is not a finite number", []),
        ("hog", "out of memory", ["memory_limit_gib=0.7"]),
    ],
)
def test_a_failure_is_a_record(
    bench: Command, results: Path, behaviour: str, reason: str, more: list[str]
) -> None:
    if behaviour == "hog" and sys.platform != "linux":
        pytest.skip("the limit is Linux's")
    words = ["model=fake", "scenario=prefill", "seed=0,1", f"model.behaviour={behaviour}", *more]
    done = bench(*words)
    assert done.code == 1, done.err
    assert reason in done.out
    assert "leaked" not in done.err
    by_seed = {r["cell"]["seed"]: r for r in records(results)}
    assert by_seed[0]["status"] == "failed"
    assert reason in by_seed[0]["reason"]
    assert by_seed[1]["status"] == "ok"
    if behaviour == "raise":
        assert "traceback.txt" in {a["name"] for a in by_seed[0]["artefacts"]}
        assert bench(*words).code == 1
        assert Counter(r["status"] for r in records(results)) == {"failed": 2, "ok": 1}


NAN = float("nan")


@pytest.mark.parametrize(
    ("payload", "where"),
    [
        ({"quality": {"value": NAN}}, "quality.value"),
        ({"quality": {"value": 1.0, "secondary": {"nll": NAN}}}, "quality.secondary.nll"),
        ({"quality": {"value": 1.0, "validation_value": NAN}}, "quality.validation_value"),
        (
            {"baselines": [{"name": "bigram", "quality": {"value": -math.inf}}]},
            "baselines.bigram.value",
        ),
        (
            {"baselines": [{"name": "knn", "quality": {"value": 1.0, "secondary": {"nll": NAN}}}]},
            "baselines.knn.secondary.nll",
        ),
        ({"figures": {"train_per_s": math.inf}}, "figures.train_per_s"),
        ({"timing": {"median_s": NAN}}, "timing.median_s"),
        # The spread of one item is none, and says so: no failure.
        ({"quality": {"value": 1.0, "stderr": NAN, "secondary": {"nll": 2.0}}}, None),
        ({"baselines": [{"name": "lzma", "quality": {"value": 1.0, "stderr": NAN}}]}, None),
    ],
)
def test_a_figure_that_is_no_number_is_named(payload: dict, where: str | None) -> None:
    assert not_finite(payload) == where


def test_a_secondary_score_that_is_no_number_fails_the_cell(bench: Command, results: Path) -> None:
    done = bench(
        "model=fake", "scenario=quality", "model.behaviour=unscored", "suite.baselines=false"
    )
    assert done.code == 1, done.err
    (record,) = records(results)
    assert record["status"] == "failed"
    assert record["reason"] == "quality.secondary.nll is not a finite number"


def test_what_cannot_be_says_why(bench: Command, results: Path) -> None:
    done = bench("model=fake", "task=fake,pictures", "scenario=decode", "suite.baselines=false")
    assert done.code == 0, done.err
    by_task = {r["cell"]["task"]: r for r in records(results)}
    assert by_task["fake"]["status"] == "ok"
    assert by_task["pictures"]["status"] == "unsupported"
    assert by_task["pictures"]["reason"] == (
        "model=fake on task=pictures cannot decode; it can: quality"
    )


def test_sweeps(bench: Command) -> None:
    done = bench(
        "-m", "model=fake,other", "size=nano,tiny", "seed=range(0,2)", "scenario=prefill",
        "dtype=float32,bfloat16", "model.backbone.depth=1,2", "plan=true", "output=json",
    )  # fmt: skip
    assert done.code == 0, done.err
    cells = done.document["plan"]
    assert len(cells) == 2**5
    keys = ("model", "size", "seed", "dtype")
    assert len({tuple(cell[key] for key in keys) for cell in cells}) == 2**4


def labels(document: dict[str, Any]) -> list[str]:
    return sorted(
        row["cells"][0]["text"]
        for block in document["table"]["blocks"]
        for row in block["rows"]
        if row["kind"] == "model"
    )


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("lr=0.01,2e-2", ["fake lr=0.01", "fake lr=0.02"]),
        ("model.backbone.depth=2,3", ["fake", "fake depth=3"]),  # 2 is the default
        ("model.backbone.width=8,16", ["fake width=16", "fake width=8"]),  # no longer solved for
    ],
)
def test_a_sweep_inside_a_group_has_a_row_a_point(
    bench: Command, results: Path, word: str, wanted: list[str]
) -> None:
    done = bench("model=fake", "suite.baselines=false", "output=json", word)
    assert done.code == 0, done.err
    assert labels(done.document) == wanted
    assert len(records(results)) == 4
    again = bench("model=fake", "suite.baselines=false", "output=json", word)
    assert labels(again.document) == wanted
    assert len(records(results)) == 4, "nothing is run twice"
    # The rows stand beside the default one when all records are read.
    bench("model=fake", "suite.baselines=false")
    table = python("-m", "bench.report", "table", str(results))
    assert table.code == 0, table.err
    first = [line.split("  ")[0].rstrip() for line in table.out.splitlines()]
    assert {*wanted, "fake"} <= set(first)


def test_what_is_given_inside_a_task_makes_a_block_of_its_own(bench: Command) -> None:
    done = bench("model=fake", "task.vocab_size=7,9", "output=json")
    titles = [block["title"] for block in done.document["table"]["blocks"]]
    assert len(titles) == 2
    assert sorted("task.vocab_size=9" in title for title in titles) == [False, True]


def test_other_training_items_make_another_row(bench: Command, results: Path) -> None:
    bench("model=fake", "suite.baselines=false")
    done = bench("model=other", "suite.items.fake=9", "suite.baselines=false", "output=json")
    assert labels(done.document) == ["other suite.items.fake=9"]


def test_plan_and_budget_run_nothing(bench: Command, results: Path) -> None:
    done = bench("plan=true")
    assert (done.code, results.exists()) == (0, False)
    assert "5 cells to run" in done.out
    bench()
    done = bench("plan=true", "force=true", "output=json")
    assert all(cell["predicted_s"] < 60 for cell in done.document["plan"])
    assert len(records(results)) == 5


def test_a_budget_says_what_it_leaves_out(bench: Command, results: Path) -> None:
    done = bench("budget=9s")  # guesses: prefill and train 4 s each, baselines 8 s
    assert done.code == 0
    assert len(records(results)) == 2
    assert "left out by budget (3 cells): fake · fake · train" in done.out


def test_the_last_line_is_one_document(bench: Command) -> None:
    done = bench("model=fake", "output=json")
    assert done.code == 0
    assert len(done.out.splitlines()) == 1
    assert {r["status"] for r in done.document["records"]} == {"ok"}
    assert done.document["table"]["blocks"]
    assert done.document["exit_code"] == 0
    assert "prefill" in done.err


def test_the_document_is_strict_json(bench: Command, results: Path) -> None:
    """Python reads 1e999 as infinity and would print it as no JSON reader accepts it."""
    bench("model=fake", "scenario=train", "suite.baselines=false")
    (path,) = results.glob("records/*.json")
    text = path.read_text()
    assert "123.0" in text
    path.write_text(text.replace("123.0", "1e999"))
    done = bench("model=fake", "scenario=train", "suite.baselines=false", "output=json")
    assert done.code == 0, done.err

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    document = json.loads(done.out.splitlines()[-1], parse_constant=refuse)
    assert document["records"][0]["figures"]["train_per_s"] is None


def test_only_a_cell_that_asks_for_the_hub_may_fetch(bench: Command, results: Path) -> None:
    common = ("model=fake", "scenario=train", "suite.baselines=false")
    assert bench(*common).code == 0
    asked = bench(*common, "task.hub=some/set")
    assert asked.code == 0
    assert bench(*common, "task.hub=some/other", HF_HUB_OFFLINE="1").code == 0  # the user's word
    assert "leaked" not in asked.err
    seen = {r["config"]["task"]["hub"]: r["seen"]["offline"] for r in records(results)}
    assert seen == {None: "1", "some/set": None, "some/other": "1"}


def test_from_another_directory(tmp_path: Path) -> None:
    done = python("-m", "tests.runner.command", *arguments(Path("out"), "model=fake"), cwd=tmp_path)
    assert done.code == 0, done.err
    assert len(records(tmp_path / "out")) == 3


def test_a_corrupt_record_loses_no_other(bench: Command, results: Path) -> None:
    bench("model=fake")
    (results / "records" / "broken.json").write_text('{"schema": 1')
    (results / "records" / "zero.json").touch()
    os.mkfifo(results / "records" / "pipe.json")  # to read it would be to wait for ever
    done = bench("model=fake", "seed=1")
    assert done.code == 0
    assert "broken.json" in done.err
    assert "zero.json: is empty" in done.err
    assert "pipe.json: is no file" in done.err
    assert len(list(results.glob("records/*.json"))) == 8  # 3, the broken ones, 2 of seed 1


def test_killing_the_parent_loses_no_record(bench: Command, results: Path, tmp_path: Path) -> None:
    words = ["model=fake", "model.behaviour=pause,slow", "scenario=prefill"]
    (tmp_path / "tmp").mkdir()
    parent = start(results, *words, TMPDIR=str(tmp_path / "tmp"))
    deadline = time.monotonic() + 60
    while not records(results) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # the slow cell is running now
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate(timeout=30)
    assert [r["status"] for r in records(results)] == ["ok"]
    left = time.monotonic() + 20
    while _group(parent.pid) and time.monotonic() < left:
        time.sleep(0.1)
    assert not _group(parent.pid), "the child has outlived its parent"
    assert not list((tmp_path / "tmp").glob("archbench-*")), "its unfinished files are left"
    # The same command again goes on where it was.
    done = bench(*words, "timeout=1")
    assert "1 of 2 cells are finished already" in done.out
    assert sorted(r["status"] for r in records(results)) == ["failed", "ok"]


def test_a_worker_that_is_killed_costs_its_own_cell(results: Path) -> None:
    parent = start(results, "model=fake", "model.behaviour=slow", "scenario=prefill", "seed=0,1")
    deadline = time.monotonic() + 60
    while not (running := _child(parent.pid, 2)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(running, signal.SIGKILL)
    out, err = parent.communicate(timeout=60)
    assert parent.returncode == 1, err
    assert "Traceback" not in out + err
    made = {r["cell"]["seed"]: r for r in records(results)}
    assert {seed: r["status"] for seed, r in made.items()} == {0: "failed", 1: "ok"}
    assert "SIGKILL" in made[0]["reason"]


def _child(process: int, depth: int) -> int:
    """A descendant `depth` generations below: the fork server's children run cells; 0 if none."""
    if depth == 0:
        return process
    for path in Path(f"/proc/{process}/task/{process}").glob("children"):
        for child in path.read_text().split():
            if found := _child(int(child), depth - 1):
                return found
    return 0


def test_two_runs_into_one_folder(bench: Command, results: Path) -> None:
    runs = [start(results, "model=fake", "seed=0,1,2") for _ in range(2)]
    for run in runs:
        out, err = run.communicate(timeout=100)
        assert run.returncode == 0, out + err
    made = records(results)
    assert len({r["key"] for r in made}) == 7
    assert {r["status"] for r in made} == {"ok"}
    assert "7 of 7 cells are finished already" in bench("model=fake", "seed=0,1,2").out


def _group(leader: int) -> bool:
    """Whether a process of the group runs; one that ended but waits to be reaped does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if int(group) == leader and state not in "ZX":
            return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_the_records(results: Path, number: signal.Signals) -> None:
    parent = start(results, "model=fake", "model.behaviour=pause,slow", "scenario=prefill")
    deadline = time.monotonic() + 60
    while not records(results) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(parent.pid, number) if number == signal.SIGINT else os.kill(parent.pid, number)
    out, err = parent.communicate(timeout=30)
    assert parent.returncode == 130
    assert "every finished record is kept" in err
    assert "Traceback" not in out + err
    assert [r["status"] for r in records(results)] == ["ok"]


def test_a_model_of_the_user_enters_the_table(results: Path, tmp_path: Path) -> None:
    """Their own module and YAML, with no edit here; the real worker builds it."""
    (tmp_path / "mypkg.py").write_text(
        "import torch\nfrom models.objectives.autoregressive import LanguageModel\n"
        "class Tiny(torch.nn.Module):\n"
        "    causal = True\n"
        "    def __init__(self, *, width):\n"
        "        super().__init__()\n"
        "        self.d_model, self.mix = width, torch.nn.Linear(width, width)\n"
        "    def forward(self, x):\n"
        "        return self.mix(x), {}\n"
        "    def flops(self, batch, length):\n"
        "        return 2 * batch * length * self.d_model ** 2\n"
    )
    folder = tmp_path / "conf" / "model"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "name: mine\nfamily: mine\ndescription: mine\nbackend: torch\n"
        "kinds:\n  language:\n    scenarios: [train]\n"
        "    model:\n      _target_: models.objectives.autoregressive.LanguageModel\n"
        "      vocab_size: ${task.vocab_size}\n      init: scaled\n"
        "      backbone: {_target_: mypkg.Tiny, width: 32}\n"
    )
    done = python(
        "-m", "bench", f"hydra.searchpath=[{tmp_path}/conf]", "allow_targets=[mypkg]",
        f"results={results}", "suite=smoke", "model=mine", "task=text", "scenario=train",
        "output=json", cwd=tmp_path, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}",
    )  # fmt: skip
    assert done.code == 0, done.out + done.err
    (record,) = records(results)
    assert (record["status"], record["cell"]["model"]) == ("ok", "mine")
    refused = python(
        "-m", "bench", f"hydra.searchpath=[{tmp_path}/conf]", f"results={results}", "suite=smoke",
        "model=mine", "task=text", cwd=tmp_path, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}",
    )  # fmt: skip
    assert refused.code == 2
    assert "mypkg.Tiny is refused" in refused.err


def test_the_parent_imports_no_torch() -> None:
    code = (
        "import sys; from bench.cli import main; main(['plan=true', 'model=mamba', 'results=x']);"
        " assert 'torch' not in sys.modules, 'torch'"
    )
    done = python("-c", code)
    assert done.code == 0, done.err


def test_help_and_list() -> None:
    done = python("-m", "bench", "--help")
    assert done.code == 0
    assert "exit code" in done.out
    done = python("-m", "bench", "list")
    assert done.code == 0
    for word in ("model:", "text", "digits", "generate", "quality", "quick", "standard"):
        assert word in done.out
    assert "cannot be read" not in done.out


def test_doctor_says_why() -> None:
    from bench import doctor

    for name, _, code in doctor.BACKENDS:
        compile(code, name, "exec")
    assert doctor.attempt("import torch_of_nobody") == (
        False,
        "ModuleNotFoundError: No module named 'torch_of_nobody'",
    )
    assert doctor.attempt("import os; os.abort()") == (False, "crashes on import (signal 6)")
    assert doctor.attempt("print(3)") == (True, "3")


def test_cfg_prints_the_composed_configuration(bench: Command) -> None:
    done = bench("model=fake", "task=fake", "--cfg")
    assert done.code == 0
    assert "backbone" in done.out
