"""Rates that a search found, written into the YAML of the models."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.store import read_paths
from scripts import commit_rates
from scripts.commit_rates import CONFIGS, KEPT, Refused, main, searches_in
from tests.factories import make_record
from tests.zoo import FILED, FREE

YAML = """\
# A comment that stays.
name: mamba
lr: {text: 0.02, context: 0.5, digits: 0.01}
tuned: {text: {nano: 0.02}}
backbone: {width: 8}
"""


def found(folder: Path, *searches: tuple[str, str, float, str], trials: int = 3) -> Path:
    """A results folder with searches: model, task, rate, size."""
    (folder / "records").mkdir(parents=True)
    for number, (model, task, rate, size) in enumerate(searches):
        record = make_record(
            model=model, task=task, scenario="tune", size=size, figures={"best_lr": rate},
            created=f"2026-11-24T10:00:{number:02d}+00:00",
            tuning={"trials": [{"lr": lr, "value": lr} for lr in (0.001, rate, 1.0)][:trials]},
        )  # fmt: skip
        (folder / "records" / f"{record['id']}.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mamba.yaml").write_text(YAML)
    return tmp_path / "configs"


def commit(results: Path, configs: Path) -> list[Path]:
    """With the records kept beside the configurations, not in the repository."""
    return commit_rates.commit(results, configs, configs.parent / "kept")


def change(results: Path, **cell: Any) -> Path:
    """The results with other values in the cell of their last search."""
    made = {path: json.loads(path.read_text()) for path in results.glob("records/*.json")}
    path, record = max(made.items(), key=lambda pair: pair[1]["created"])
    record["cell"] |= cell
    path.write_text(json.dumps(record))
    return results


def test_the_search_of_each_task_and_size_is_written(
    configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = found(
        tmp_path / "run",
        ("mamba", "text", 0.04, "nano"), ("mamba", "text", 0.04, "nano"),
        ("mamba", "generate", 0.02, "micro"), ("mamba", "digits", 0.005, "tiny"),
    )  # fmt: skip
    change(results, overrides=["scenario.grid=[0.001,0.005,1.0]"])
    ids = [path.stem for path in sorted(results.glob("records/*.json"))]
    commit(results, configs)
    text = (configs / "mamba.yaml").read_text()
    assert text.splitlines() == [
        "# A comment that stays.",
        "name: mamba",
        "lr: {text: 0.04, context: 0.5, digits: 0.005, generate: 0.02}",
        "tuned: {text: {nano: 0.04}, generate: {micro: 0.02}, digits: {tiny: 0.005}}",
        "backbone: {width: 8}",
    ]
    assert capsys.readouterr().out.splitlines() == [
        f"mamba text nano: 0.04 of 0.001: 0.001, 0.04: 0.04, 1.0: 1.0 ({ids[0]})",
        f"mamba generate micro: 0.02 of 0.001: 0.001, 0.02: 0.02, 1.0: 1.0 ({ids[2]})",
        f"mamba digits tiny: 0.005 of 0.001: 0.001, 0.005: 0.005, 1.0: 1.0 ({ids[3]})",
    ]
    commit(results, configs)
    assert (configs / "mamba.yaml").read_text() == text
    records, problems, _ = read_paths([configs.parent / "kept"])
    assert sorted(record["id"] for record in records) == [ids[0], *ids[2:]]
    assert not problems


def test_a_weight_decay_is_written_where_several_were_tried(configs: Path, tmp_path: Path) -> None:
    results = found(tmp_path / "run", ("mamba", "text", 0.04, "nano"))
    (path,) = results.glob("records/*.json")
    record = json.loads(path.read_text())
    record["figures"]["best_weight_decay"] = 0.3
    for trial, decay in zip(record["tuning"]["trials"], (0.3, 0.1, 0.3), strict=True):
        trial["weight_decay"] = decay
    path.write_text(json.dumps(record))
    commit(results, configs)
    commit(results, configs)
    lines = (configs / "mamba.yaml").read_text().splitlines()
    assert lines[2:4] == [
        "lr: {text: 0.04, context: 0.5, digits: 0.01}", "weight_decay: {text: 0.3}",
    ]  # fmt: skip


def test_unequal_effort_is_refused(configs: Path, tmp_path: Path) -> None:
    results = found(tmp_path / "run", ("mamba", "text", 0.04, "nano"))
    more = found(tmp_path / "more", ("rwkv", "text", 0.04, "nano"), trials=2)
    for path in more.glob("records/*.json"):
        path.rename(results / "records" / path.name)
    with pytest.raises(Refused, match=r"text · nano: rwkv had 2 trials and mamba 3;"):
        commit(results, configs)
    assert (configs / "mamba.yaml").read_text() == YAML


def test_the_defaults_are_what_the_kept_records_found() -> None:
    for model, searches in searches_in(KEPT).items():
        stated = yaml.safe_load((CONFIGS / f"{model}.yaml").read_text())
        for (task, size), search in searches.items():
            assert stated["tuned"][task][size] == search.rate
            if search.decay is not None:
                assert stated["weight_decay"][task] == search.decay


def test_searches_that_disagree_are_refused(
    configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = found(
        tmp_path / "run", ("mamba", "text", 0.08, "nano"), ("mamba", "text", 0.04, "nano")
    )
    change(results, dtype="bfloat16")
    with pytest.raises(Refused, match=r"mamba · text · nano that found 0.08 and 0.04;"):
        commit(results, configs)
    assert (configs / "mamba.yaml").read_text() == YAML
    assert not capsys.readouterr().out, "nothing was written"


def test_a_search_of_a_changed_model_is_refused(configs: Path, tmp_path: Path) -> None:
    results = found(tmp_path / "run", ("mamba", "text", 0.08, "nano"))
    change(results, overrides=["model.backbone.n_layers=48"])
    with pytest.raises(Refused, match=r"mamba · text · nano with model.backbone.n_layers=48"):
        commit(results, configs)
    assert (configs / "mamba.yaml").read_text() == YAML


def test_every_model_of_ours_has_a_place_for_its_rates(tmp_path: Path) -> None:
    """Rates that stand there already change nothing."""
    configs = tmp_path / "configs"
    configs.mkdir()
    searches = []
    ours = [path for path in CONFIGS.glob("*.yaml") if path.stem not in (*FREE, *FILED)]
    for path in ours:
        (configs / path.name).write_text(path.read_text())
        model = yaml.safe_load(path.read_text())
        tuned = model["tuned"] or {"text": {"nano": model["lr"]["text"]}}  # a first search
        tasks = {"text", "digits", "generate"} & tuned.keys()
        searches += [(path.stem, task, tuned[task]["nano"], "nano") for task in tasks]
    written = commit(found(tmp_path / "run", *searches), configs)
    assert len(written) == len(ours)
    for path in written:
        before = yaml.safe_load((CONFIGS / path.name).read_text())
        before["tuned"] = before["tuned"] or {"text": {"nano": before["lr"]["text"]}}
        assert yaml.safe_load(path.read_text()) == before


@pytest.mark.parametrize(
    ("model", "task", "sentence"),
    [
        ("mine", "text", "mine.yaml does not exist; model=mine"),
    ],
)
def test_a_rate_without_a_place_is_refused_and_nothing_written(
    model: str, task: str, sentence: str, configs: Path, tmp_path: Path
) -> None:
    results = found(tmp_path / "run", ("mamba", "text", 0.08, "nano"), (model, task, 0.1, "nano"))
    with pytest.raises(Refused, match=sentence):
        commit(results, configs)
    assert (configs / "mamba.yaml").read_text() == YAML


def test_a_model_without_the_line_is_refused(configs: Path, tmp_path: Path) -> None:
    (configs / "mamba.yaml").write_text(YAML.replace("tuned:", "tunes:"))
    with pytest.raises(Refused, match="no line 'tuned:"):
        commit(found(tmp_path / "run", ("mamba", "text", 0.08, "nano")), configs)


def test_an_end_of_the_grid_is_told(
    configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(found(tmp_path / "run", ("mamba", "text", 1.0, "nano")), configs)
    assert "mamba text nano: 1.0 is an end of the grid" in capsys.readouterr().err


def test_results_without_a_search_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(found(tmp_path / "run"))]) == 2
    assert "holds no finished cell of scenario=tune" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere' does not exist" in capsys.readouterr().err
    assert main([]) == 2
