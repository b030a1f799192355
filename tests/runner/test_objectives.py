"""The axis `objective`: cells, keys and refusals, and every crossed cell of suite grid runs."""

from pathlib import Path

import pytest

from bench.cell import Cell
from bench.cli import Application, main
from bench.config import tree_of
from bench.errors import BadInput
from bench.identity import digest
from bench.objectives import lay
from tests.runner.cells import cells, payload

FEW = ("suite.baselines=false", "suite.ceilings=false")


def planned(*words: str) -> list[Cell]:
    return cells(*words, *FEW)


def one(*words: str) -> Cell:
    [cell] = planned(*words, "scenario=train")
    return cell


def test_a_crossed_cell_says_so_and_has_a_key_of_its_own() -> None:
    own = one("model=mamba", "task=generate")
    cell = one("model=mamba", "task=generate", "objective=diffusion")
    assert cell.part["objective"] == cell.config["objective"] == "diffusion"
    assert cell.name == "mamba · under diffusion · generate · train · nano · seed 0"
    assert cell.config["model"]["kinds"]["generate"]["model"]["_target_"].endswith("Diffusion")
    assert cell.config["model"]["tuned"] == {}
    assert cell.config["model"]["lr"]["generate"] == 0.01
    assert own.config["model"]["lr"]["generate"] == 0.04
    assert digest(own.config) != digest(cell.config)
    assert {**own.part, "objective": "diffusion"} == cell.part


@pytest.mark.parametrize(
    ("model", "task", "objective"),
    [
        ("mamba", "generate", "autoregressive"),
        ("hybrid", "text", "autoregressive"),
        ("rwkv", "digits", "classification"),
        ("resnet", "digits", "classification"),
        ("diffusion", "text", "diffusion"),
        ("dit", "digits", "diffusion"),
    ],
)
def test_the_familys_own_objective_changes_nothing(model: str, task: str, objective: str) -> None:
    named = one(f"model={model}", f"task={task}", f"objective={objective}")
    plain = one(f"model={model}", f"task={task}")
    assert named.part == plain.part
    assert "objective" not in plain.part
    assert named.config == plain.config
    assert "objective" not in plain.config
    assert "objectives" not in {*plain.config["model"], *plain.config["suite"]}


def test_the_axis_sweeps_and_names_each_cell_once() -> None:
    words = ("model=transformer,dit", "task=digits", "scenario=quality")
    found = planned(*words, "objective=null,classification,diffusion,autoregressive")
    names = [(c.part["model"], c.part.get("objective"), c.unsupported is None) for c in found]
    assert sorted(names, key=str) == [
        ("dit", "autoregressive", False), ("dit", "classification", False), ("dit", None, True),
        ("transformer", "autoregressive", True), ("transformer", "diffusion", True),
        ("transformer", None, True),
    ]  # fmt: skip


REFUSED = {
    "nowhere": ("model=mamba task=text objective=classification", "it is for: classify"),
    "no such form": (
        "model=dit task=digits objective=autoregressive",
        "model=dit has no form under objective=autoregressive for tasks of kind 'classify'",
    ),
    "a better one": ("model=resnet task=generate objective=diffusion", "the U-Net, model=diffu"),
    "another library": ("model=timm task=digits objective=diffusion", "model=timm has no form"),
    "a checkpoint": (
        "model=mamba task=text objective=diffusion model.pretrained=some/folder",
        "leave out objective=diffusion",
    ),
    "a scenario": ("model=mamba task=text objective=diffusion scenario=decode", "cannot decode"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_unsupported_with_its_reason(name: str) -> None:
    words, part = REFUSED[name]
    found = planned(*words.split())
    assert len(found) == 1
    assert part in str(found[0].unsupported)
    assert found[0].part["objective"] == words.split("objective=")[1].split()[0]


WRONG = {
    "unknown": (["objective=difusion"], "Did you mean 'diffusion'?"),
    "of the own form": (
        ["objective=diffusion", "task=generate", "model.kinds.generate.model.levels=3"],
        "give objective.kinds.generate.model.levels.",
    ),
    "of the own rate": (
        ["objective=diffusion", "task=generate", "model.lr.generate=0.1"],
        "give objective.lr.generate.",
    ),
    "of the other form": (
        ["model=dit", "objective=diffusion", "task=digits", "objective.lr.digits=0.1"],
        "give model.lr.digits.",
    ),
    "without one": (["task=generate", "objective.lr.generate=0.1"], "objective.lr.generate"),
    "what the file is": (["objective=diffusion", "objective.kinds=null"], "cannot be set"),
    "a type": (
        ["objective=diffusion", "task=generate", "objective.kinds.generate.model.draws=many"],
        "wrong type",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_one_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, part = WRONG[name]
    model = [] if any(word.startswith("model=") for word in words) else ["model=mamba"]
    given = ["suite=smoke", "plan=true", "scenario=train", f"results={tmp_path}", *FEW]
    assert main([*given, *model, *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert part in said


def test_an_objective_that_there_is_not_is_refused_in_a_models_file() -> None:
    tree = tree_of(Application([]).compose(["model=mamba", "task=text"]))
    tree["model"]["objectives"] = {"difusion": {}}
    with pytest.raises(BadInput, match=r"'objectives.difusion' is no objective; allowed"):
        lay(tree, ["autoregressive", "diffusion"])
    tree["model"]["objectives"] = ["diffusion"]
    with pytest.raises(BadInput, match="model=mamba: objectives is no mapping"):
        lay(tree, ["autoregressive", "diffusion"])


def test_values_inside_an_objective_reach_the_model_and_the_name() -> None:
    key = "objective.kinds.generate.model.network.patch"
    cell = one("model=mamba", "task=generate", "objective=diffusion", f"{key}=1")
    assert cell.config["model"]["kinds"]["generate"]["model"]["network"]["patch"] == 1
    assert f"{key}=1" in cell.part["overrides"]


def test_suite_grid_holds_every_objective_of_every_backbone() -> None:
    """And silence on what nobody expects: classes of text, a U-Net symbol by symbol."""
    found = grid()
    assert {c.part["model"] for c in found if c.unsupported} == {"resnet", "dit"}
    ran = {
        (c.part["model"], c.part["task"], c.part.get("objective"))
        for c in found
        if not c.unsupported
    }
    sequence = ("transformer", "moe", "mamba", "mamba2", "mamba3", "rwkv", "hybrid")
    everywhere = {("text", None), ("digits", None), ("generate", None), ("text", "diffusion"),
                  ("digits", "diffusion"), ("generate", "diffusion"),
                  ("digits", "autoregressive")}  # fmt: skip
    images = {("digits", "diffusion"), ("generate", "diffusion")}
    assert ran == (
        {(model, *rest) for model in sequence for rest in everywhere}
        | {("resnet", *rest) for rest in everywhere - images}
        | {("diffusion", task, None) for task in ("text", "digits", "generate")}
        | {("dit", task, None) for task in ("digits", "generate")}
    )


def grid() -> list[Cell]:
    """The cells of suite grid."""
    from bench import run

    found: list[Cell] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "execute", lambda cells, *_: found.extend(cells) or 0)
        words = ["suite=grid", "suite.scenarios=[quality]", "threads=1", *FEW]
        Application(words).run("no.worker:starts")
    return found


CROSSED = [
    (model, task, objective)
    for model in ("transformer", "moe", "mamba", "mamba2", "mamba3", "rwkv", "hybrid", "resnet")
    for task, objective in (
        ("text", "diffusion"), ("digits", "diffusion"), ("generate", "diffusion"),
        ("digits", "autoregressive"),
    )
    if (model, objective) != ("resnet", "diffusion") or task == "text"
]  # fmt: skip


# Few draws: what is tested is that a cell leads to a score.
FAST = {
    ("text", "diffusion"): ["objective.kinds.language.model.draws=2"],
    ("digits", "diffusion"): ["objective.kinds.classify.model.draws=1"],
    ("generate", "diffusion"): [
        "objective.kinds.generate.model.draws=2",
        "objective.kinds.generate.model.sampling_steps=2",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize(("model", "task", "objective"), CROSSED)
def test_a_crossed_cell_is_trained_and_scored(
    model: str, task: str, objective: str, tmp_path: Path
) -> None:
    words = (f"model={model}", f"task={task}", f"objective={objective}", "scenario=quality")
    fast = FAST.get((task, objective), [])
    made = payload(tmp_path, *words, *FEW, *fast, "suite.items.generate=8")
    quality, numbers = made["quality"], made["parameters"]
    assert abs(numbers["matched"] / numbers["target"] - 1) <= 0.03
    assert quality["value"] >= 0
    assert quality["bound"] == (objective == "diffusion" and task != "digits")
    if task == "digits":
        told = {"diffusion": "bound", "autoregressive": "log p(x|y)"}
        assert quality["notes"]["readout"] == told[objective]
    assert quality["tuned"] is False
