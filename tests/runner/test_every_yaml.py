"""Every YAML of `configs/` runs through the command line, those that must fail too.

The real worker, the smallest suite: what is tested is that each file leads to a record, not its
figures.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.cli import Application, main
from tests.runner.conftest import ROOT, Done, here, python, records
from tests.zoo import FILED

CONFIGS = ROOT / "configs"


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def run(results: Path, *words: str) -> Done:
    return here(f"results={results}", "threads=1", *words)


@dataclass(frozen=True)
class Smoke:
    """What suite smoke left, and the last line that its first command printed."""

    records: list[dict]
    texts: list[dict]  # those that the first command made
    last_line: str


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """Every model in every scenario on text, and trained and scored on images."""
    folder = tmp_path_factory.mktemp("smoke")
    given = (f"results={folder}", "threads=1", "suite=smoke")
    first = python("-m", "bench", *given, "task=text", "output=json")
    assert first.code == 0, first.err[-3000:]
    texts = records(folder)
    images = ("task=digits,generate", "scenario=quality,baselines")
    done = here(*given, *images, run=functools.partial(main, worker="tests.runner.few:run_cell"))
    assert done.code == 0, done.err[-3000:]
    return Smoke(records(folder), texts, first.out.rstrip().splitlines()[-1])


@pytest.mark.slow
def test_the_last_line_is_one_json_document(smoke: Smoke) -> None:
    document = json.loads(smoke.last_line)
    assert document["exit_code"] == 0
    assert sorted(r["id"] for r in document["records"]) == sorted(r["id"] for r in smoke.texts)


@pytest.mark.slow
def test_every_model_runs_on_every_shared_task(smoke: Smoke) -> None:
    # Those of timm and diffusers are images' alone, and run below; some need a checkpoint.
    families = sorted(set(names("model")) - {"timm", "diffusers", *FILED})
    wanted = {(m, t) for m in families for t in ("text", "digits", "generate")}
    without = {("dit", "text")}  # DiT sees patches of images; its YAML has no form for text
    refused = [r for r in smoke.records if r["status"] != "ok"]
    assert {(r["cell"]["model"], r["cell"]["task"]) for r in refused} == without
    assert {r["status"] for r in refused} == {"unsupported"}, [r["reason"] for r in refused]
    scored = {(r["cell"]["model"], r["cell"]["task"]) for r in smoke.records if r.get("quality")}
    assert scored == wanted - without
    scenarios = {r["cell"]["scenario"] for r in smoke.records}
    assert scenarios == set(names("scenario")) - {"tune", "context", "frontier", "harness"}


@pytest.mark.slow
def test_images_are_trained_read_and_drawn(tmp_path: Path) -> None:
    """By one family, the fastest that does all three; the others are trained and scored above."""
    words = ["suite=smoke", "model=transformer", "task=digits,generate", "suite.baselines=false"]
    done = run(tmp_path, *words, "scenario=train,prefill,sample")
    assert done.code == 0, done.err[-3000:]
    made = {(r["cell"]["task"], r["cell"]["scenario"]): r for r in records(tmp_path)}
    refused = made.pop(("digits", "sample"))
    assert refused["status"] == "unsupported"
    assert "on task=digits cannot sample" in refused["reason"]
    assert set(made) == {
        ("digits", "train"), ("digits", "prefill"),
        ("generate", "train"), ("generate", "prefill"), ("generate", "sample"),
    }  # fmt: skip
    for record in made.values():
        assert record["status"] == "ok", record["reason"]
        check_speed(record)


def check_speed(record: dict) -> None:
    """Items a second, and what they took, are told."""
    assert record["figures"][f"{record['cell']['scenario']}_per_s"] > 0, record["cell"]
    memory = record["memory"]
    assert memory["peak_bytes"] > memory["parameters_bytes"]
    assert memory["rss_start_bytes"] > 0
    if memory["rss_peak_bytes"] is not None:  # where the system lets it be reset
        assert memory["rss_peak_bytes"] > memory["rss_start_bytes"]


@pytest.mark.slow
def test_every_figure_of_the_table_is_there(smoke: Smoke) -> None:
    for record in (r for r in smoke.records if r["status"] == "ok"):  # the test above has the rest
        scenario, figures = record["cell"]["scenario"], record.get("figures") or {}
        if scenario in ("train", "prefill", "decode", "sample"):
            check_speed(record)
        if scenario == "decode":
            assert figures["state_bytes"] > 0
            assert record["latency"]["ttft_s"] > record["latency"]["p50_s"] > 0
        if scenario == "quality":
            stored = {artefact["name"] for artefact in record["artefacts"]}
            assert {"items.npy", "curve.json", "checkpoint.safetensors"} <= stored
            assert record["curve"]["items"][-1] == record["quality"]["train_items"]
            items, tokens = (record["quality"].get(f"train_{k}") for k in ("items", "tokens"))
            assert items >= record["config"]["suite"]["items"][record["cell"]["task"]]
            text = record["cell"]["kind"] == "language"
            assert tokens == (items * record["config"]["task"]["context"] if text else None)
        if scenario not in ("baselines", "ceilings"):
            numbers = record["parameters"]
            assert abs(numbers["matched"] / numbers["target"] - 1) <= 0.03


@pytest.mark.slow
def test_probes_are_trained_and_scored(tmp_path: Path) -> None:
    """Each by the Transformer, and one by every model of suite probes-quick."""
    paths = [p for p in (CONFIGS / "task").glob("*.yaml") if "tasks.probes" in p.read_text()]
    # Those that are another one at its published size take long to test.
    probes = [p.stem for p in paths if not any(p.stem.startswith(f"{q.stem}_") for q in paths)]
    few = ["size=micro", "scenario=quality", "suite.baselines=false"]
    done = run(
        tmp_path, *few, "suite=smoke", "model=transformer", f"task={','.join(probes)},source"
    )
    assert done.code == 0, done.err[-3000:]
    assert {r["cell"]["task"] for r in records(tmp_path)} == {*probes, "source"}
    others, items = tmp_path / "others", ["suite.items.parity=32", "suite.items.recall=32"]
    items += ["+suite.items.mad_compression=32", "suite.test_items=8", "suite.validation_items=8"]
    done = run(others, *few, "suite=probes-quick", *items, "task=parity,recall,mad_compression")
    assert done.code == 0, done.err[-3000:]
    made = {(r["cell"]["model"], r["cell"]["task"]): r for r in records(others)}
    refused = made.pop(("diffusion", "parity"))
    assert refused["status"] == "unsupported"
    assert "reads from both sides" in refused["reason"]
    assert made[("diffusion", "recall")]["quality"]["notes"]["reads"] == "from both sides"
    refused = made.pop(("diffusion", "mad_compression"))
    assert refused["status"] == "unsupported"
    assert "asks for a backbone that reads a sequence into its last position" in refused["reason"]
    assert len(made) == 19
    for record in made.values():
        assert record["status"] == "ok", record["reason"]
        assert 0 <= record["quality"]["secondary"]["guess"] < 1
        assert record["quality"]["notes"]["learned"] == "not learned in the budget"


@pytest.mark.slow
def test_networks_of_other_libraries_run(tmp_path: Path) -> None:
    done = run(tmp_path, "suite=smoke", "model=timm,diffusers", "task=digits", "scenario=train")
    assert done.code == 0, done.err[-3000:]
    assert {(r["cell"]["model"], r["status"]) for r in records(tmp_path)} == {
        ("timm", "ok"), ("diffusers", "ok")
    }  # fmt: skip


@pytest.mark.slow
def test_tasks_and_sizes_run_at_the_smallest(tmp_path: Path) -> None:
    words = ["task=code,text", "model=transformer", "size=nano,tiny", "suite=smoke"]
    done = run(tmp_path, *words, "scenario=prefill", "suite.baselines=false", "device=cpu")
    assert done.code == 0, done.err[-3000:]
    targets = {
        (r["cell"]["task"], r["cell"]["size"]): r["parameters"]["target"] for r in records(tmp_path)
    }
    assert targets == {
        (task, size): target
        for task in ("code", "text")
        for size, target in (("nano", 250_000), ("tiny", 1_500_000))
    }


@pytest.mark.slow
def test_tune_scores_each_rate_on_validation(tmp_path: Path) -> None:
    words = ["scenario=tune", "model=resnet", "task=digits", "suite=smoke", "suite.baselines=false"]
    done = run(tmp_path, *words)
    assert done.code == 0, done.err[-3000:]
    (record,) = records(tmp_path)
    trials = record["tuning"]["trials"]
    assert [trial["lr"] for trial in trials] == [0.01, 0.02, 0.04]
    best = max(trials, key=lambda trial: trial["value"])
    assert record["figures"]["best_lr"] == best["lr"]


@pytest.mark.parametrize("suite", names("suite"))
def test_every_suite_and_size_plans(suite: str, tmp_path: Path) -> None:
    sizes = ",".join(names("size"))
    done = run(tmp_path, f"suite={suite}", f"size={sizes}", "model=transformer", "plan=true")
    assert done.code == 0, done.err[-3000:]
    assert records(tmp_path) == []


def test_optional_tasks_say_what_they_need(tmp_path: Path) -> None:
    tasks = ("enwik8", "wikitext", "stream", "cifar10", "mnist")
    words = ("model=transformer", "suite=smoke", "scenario=prefill", "suite.baselines=false")
    done = run(tmp_path, f"task={','.join(tasks)}", *words)
    assert done.code == 2, done.out + done.err
    for task in tasks:
        [line] = [line for line in done.out.splitlines() if f" · {task} · " in line]
        assert "bad input" in line
    texts, shards, images = done.err.splitlines()  # the same sentence is said once
    assert texts.startswith("error: task.path=null: this task brings no data of its own")
    assert "python -m bench.prepare FOLDER" in shards
    assert images.startswith("error: task.path=null: this task brings no images of its own")


def test_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run(tmp_path, "device=cuda", "model=transformer", "suite=smoke")
    assert done.code == 2
    assert "device=cuda" in done.err
    assert "Traceback" not in done.err


def test_a_text_shorter_than_one_context(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("too short")
    words = ["task=text", f"task.path={short}", "model=transformer", "suite=smoke"]
    done = run(tmp_path / "results", *words, "scenario=prefill")
    assert done.code == 2, done.out + done.err
    assert "task.path" in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_records_name_the_backend_of_the_form_that_ran(smoke: Smoke) -> None:
    told = {(r["cell"]["model"], r["cell"]["task"]): r["cell"]["backend"] for r in smoke.records}
    assert told["resnet", "text"] == told["diffusion", "text"] == told["mamba", "text"] == "torch"
    assert told["resnet", "digits"] == "timm"
    assert told["diffusion", "digits"] == told["diffusion", "generate"] == "diffusers"


@pytest.mark.parametrize(
    ("words", "decay"),
    [
        (["suite=standard", "task=digits"], 0.3),
        (["suite=standard", "task=text"], 0.01),
        (["suite=quick", "task=digits"], 0.01),
        (["suite=standard", "task=digits", "optimizer.weight_decay=0.7"], 0.7),
    ],
)
def test_a_suite_states_the_decay_of_a_task_and_the_user_has_the_last_word(
    words: list[str], decay: float
) -> None:
    assert Application(words).compose(words).optimizer.weight_decay == decay
