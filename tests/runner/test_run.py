"""Cells become records whatever happens to them, and are not run again."""

import json
import math
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench.cli import main
from bench.recording import not_finite
from tests.runner.conftest import ROOT, Command, arguments, python, records


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
    assert first["environment"]["spin"]["GOMP_SPINCOUNT"] == "10000"
    assert first["code"]["source_sha256"]
    assert first["wall_s"] > 0
    # Plain lines where the output is no terminal, cheap scenarios first.
    lines = [line for line in done.out.splitlines() if line.startswith("[")]
    assert len(lines) == 5
    assert lines[0].startswith("[1/5] fake · fake · prefill · nano · seed 0   123 tokens/s")
    assert "said by the worker" not in done.out + done.err


def test_finished_cells_are_not_run_again(bench_here: Command, results: Path) -> None:
    bench_here("model=fake")
    done = bench_here("model=fake")
    assert (done.code, len(records(results))) == (0, 3)
    assert "3 of 3 cells are finished already" in done.out
    bench_here("model=fake", "suite.measure.min_samples=2")
    assert len(records(results)) == 6
    bench_here("model=fake", "force=true")
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
        ("malformed", "has quality.n_items = '3.5' where int belongs", []),
        ("misnamed", "artefact name 'two words.npy' cannot name a file", []),
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
    if behaviour in ("malformed", "misnamed"):
        assert [a["name"] for a in by_seed[0]["artefacts"]] == ["log.txt"]
        assert not {"figures", "quality", "timing"} & set(by_seed[0]), "none of it is a result"
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


def test_a_secondary_score_that_is_no_number_fails_the_cell(
    bench_here: Command, results: Path
) -> None:
    done = bench_here(
        "model=fake", "scenario=quality", "model.behaviour=unscored", "suite.baselines=false"
    )
    assert done.code == 1, done.err
    (record,) = records(results)
    assert record["status"] == "failed"
    assert record["reason"] == "quality.secondary.nll is not a finite number"


def test_what_cannot_be_says_why(bench_here: Command, results: Path) -> None:
    done = bench_here(
        "model=fake", "task=fake,pictures", "scenario=decode", "suite.baselines=false"
    )
    assert done.code == 0, done.err
    by_task = {r["cell"]["task"]: r for r in records(results)}
    assert by_task["fake"]["status"] == "ok"
    assert by_task["pictures"]["status"] == "unsupported"
    assert by_task["pictures"]["reason"] == (
        "model=fake on task=pictures cannot decode; it can: quality"
    )


def test_plan_and_budget_run_nothing(bench_here: Command, results: Path) -> None:
    done = bench_here("plan=true")
    assert (done.code, results.exists()) == (0, False)
    assert "5 cells to run" in done.out
    bench_here()
    done = bench_here("plan=true", "force=true", "output=json")
    assert all(cell["predicted_s"] < 60 for cell in done.document["plan"])
    assert len(records(results)) == 5


def test_a_budget_says_what_it_leaves_out(bench_here: Command, results: Path) -> None:
    done = bench_here("budget=9s")  # guesses: prefill and train 4 s each, baselines 8 s
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


def test_the_document_is_strict_json(bench_here: Command, results: Path) -> None:
    """Python reads 1e999 as infinity and would print it as no JSON reader accepts it."""
    bench_here("model=fake", "scenario=train", "suite.baselines=false")
    (path,) = results.glob("records/*.json")
    text = path.read_text()
    assert "123.0" in text
    path.write_text(text.replace("123.0", "1e999"))
    done = bench_here("model=fake", "scenario=train", "suite.baselines=false", "output=json")
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


def test_a_corrupt_record_loses_no_other(bench_here: Command, results: Path) -> None:
    bench_here("model=fake")
    (results / "records" / "broken.json").write_text('{"schema": 1')
    (results / "records" / "zero.json").touch()
    os.mkfifo(results / "records" / "pipe.json")  # to read it would be to wait for ever
    done = bench_here("model=fake", "seed=1")
    assert done.code == 0
    assert "broken.json" in done.err
    assert "zero.json: is empty" in done.err
    assert "pipe.json: is no file" in done.err
    assert len(list(results.glob("records/*.json"))) == 8  # 3, the broken ones, 2 of seed 1


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


def test_table_has_a_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["table", "--help"])
    assert end.value.code == 0
    assert "--stale" in capsys.readouterr().out


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


def test_cfg_prints_the_composed_configuration(bench_here: Command) -> None:
    done = bench_here("model=fake", "task=fake", "--cfg")
    assert done.code == 0
    assert "backbone" in done.out
