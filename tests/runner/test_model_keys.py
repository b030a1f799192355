"""A model's YAML is held against what is read of it, whoever wrote it."""

from pathlib import Path

import pytest
import yaml

from bench.cli import Application, main
from bench.config import check_model
from bench.errors import BadInput
from tests.runner.conftest import CONFIGS
from tests.zoo import GROUPS, PAIRS, TASKS

TEXT = (CONFIGS / "model" / "fake.yaml").read_text()
MINE = yaml.safe_load(TEXT.replace("behaviour: good\n", "").replace("${model.behaviour}", "good"))
ALLOWED = "allowed: name, family, description, backend, kernel, preload, lr, weight_decay, tuned"


def planned(folder: Path, changes: dict[str, object], *words: str) -> list[str]:
    """The command line that plans a model of the user, fake's with `changes`; None takes away."""
    mine = {**MINE, "name": "mine", **changes}
    mine = {key: value for key, value in mine.items() if value is not None}
    (folder / "model").mkdir()
    (folder / "model" / "mine.yaml").write_text(yaml.safe_dump(mine))
    search = f"hydra.searchpath=[{CONFIGS},{folder}]"
    given = [search, "suite=fakes", "model=mine", "allow_targets=[fakepkg]", "plan=true"]
    return [*given, f"results={folder}/results", *words]


FORM = MINE["kinds"]["language"]
WRONG = {
    "an optimizer of its own": ({"optimizer": {"lr": 0.1}}, ["'optimizer' is no key", ALLOWED]),
    "a typing error": ({"shaps": {}}, ["'shaps' is no key", "Did you mean 'shapes'?"]),
    "one in a form": (
        {"kinds": {"language": {**FORM, "solv": {"key": "x"}}}},
        ["'kinds.language.solv' is no key", "kinds.language.solve", "Did you mean 'solve'?"],
    ),
    "no family": ({"family": None}, ["the key 'family' is missing", ALLOWED]),
    "no kinds": ({"kinds": None}, ["the key 'kinds' is missing"]),
    "no scenarios": (
        {"kinds": {"language": {"model": {}}}}, ["the key 'kinds.language.scenarios' is missing"],
    ),
    "kinds in a list": ({"kinds": ["language"]}, ["kinds is no mapping"]),
    "a form that is none": ({"kinds": {"language": "yes"}}, ["kinds is no mapping"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_one_sentence_names_the_key(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, parts = WRONG[name]
    assert main(planned(tmp_path, changes)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: model=mine: ")
    assert len(said.splitlines()) == 1
    for part in parts:
        assert part in said
    assert not (tmp_path / "results" / "records").exists()


def test_a_value_that_the_file_refers_to_is_no_unknown_key(tmp_path: Path) -> None:
    backbone = {**MINE["backbone"], "depth": "${model.layers}"}
    assert main(planned(tmp_path, {"layers": 3, "backbone": backbone})) == 0


def test_a_key_added_on_the_command_line_is_refused_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(planned(tmp_path, {}, "+model.adam_ratio=0.1")) == 2
    assert "'adam_ratio' is no key that is read" in capsys.readouterr().err


@pytest.mark.parametrize("name", GROUPS)
def test_our_own_are_read_wholly(name: str) -> None:
    config = Application([]).compose([f"model={name}"])
    check_model(config)
    config.model._set_flag("struct", False)
    config.model["stray"] = 1
    with pytest.raises(BadInput, match=f"model={name}: 'stray'"):
        check_model(config)


def test_kinds_of_our_own_are_kinds_of_tasks() -> None:
    assert {kind for _, kind in PAIRS} == set(TASKS)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["+suite.weight_decay.fake=-1"], ["suite.weight_decay.fake=-1", "numbers from 0"]),
        (["+suite.weight_decay.fake=nan"], ["suite.weight_decay.fake=nan", "finite"]),
        (["+suite.weight_decay.fake=inf"], ["suite.weight_decay.fake=inf", "finite"]),
        (["+suite.weight_decay.digits=-1"], ["suite.weight_decay.digits=-1"]),  # not in the run
        (["+suite.weight_decay.fak=0.1"], ["suite.weight_decay: task=fak", "Did you mean 'fake'"]),
        (["+suite.weight_decay.fake=much"], ["suite.weight_decay.fake=much", "Float"]),
        (["suite.weight_decay.fake=0.1"], ["suite.weight_decay.fake", "+suite.weight_decay.fake"]),
        (["optimizer.weight_decay=-0.1"], ["optimizer.weight_decay=-0.1", "numbers from 0"]),
        (["optimizer.weight_decay=nan"], ["optimizer.weight_decay=nan", "finite"]),
        (["train.weight_decay=0.1"], ["'train.weight_decay'", "mean 'optimizer.weight_decay'?"]),
        (["weight_decay=0.1"], ["'weight_decay'", "mean 'optimizer.weight_decay'?"]),
        (["optimizer.weight_decai=0.1"], ["Did you mean 'weight_decay'?"]),
    ],
)
def test_weight_decay_that_cannot_be(
    words: list[str], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        f"hydra.searchpath=[{CONFIGS}]",
        "suite=fakes",
        "model=fake",
        "allow_targets=[fakepkg]",
    ]
    assert main([*given, f"results={tmp_path}/results", "plan=true", *words]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    for part in parts:
        assert part in said


def test_a_suites_decay_reaches_its_task_alone() -> None:
    for task, decay in (("text", 0.01), ("digits", 0.2)):
        words = [f"task={task}", "+suite.weight_decay.digits=0.2"]
        assert Application([]).compose(words).optimizer.weight_decay == decay


def test_a_file_alone_is_what_hydra_composes_of_it() -> None:
    """The planner reads it then, which takes a tenth of the time."""
    app = Application([])
    groups = {group: app.options(group) for group in ("model", "task", "scenario")}
    for number in range(max(map(len, groups.values()))):
        picked = {group: names[number % len(names)] for group, names in groups.items()}
        config = app.compose([f"{group}={name}" for group, name in picked.items()])
        for group, name in picked.items():
            assert app.alone(group, name) == config[group], (group, name)


@pytest.mark.parametrize("first", ["defaults: [fake]", "# @package _global_", "name: [1, 2"])
def test_a_file_that_is_more_than_itself_is_left_to_hydra(first: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(f"{first}\nname: mine\n")
    app = Application([f"hydra.searchpath=[{CONFIGS},{tmp_path}]"])
    assert app.alone("model", "mine") is None
    assert app.alone("model", "fake").name == "fake"
    assert app.alone("model", "nowhere") is None
