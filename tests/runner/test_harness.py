"""lm-evaluation-harness on local tasks: our states give what its own classes give."""

import json
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import bench.eval
from bench.errors import BadInput
from bench.scenarios.harness import language_model
from bench.tasks.tokenizer import load_tokenizer
from models.checkpoints.formats import Formats
from models.objectives.autoregressive import LanguageModel
from tests.models.checkpoints import built
from tests.runner.cells import cells, payload
from tests.runner.conftest import here, python, records
from tests.small import llama, tokenizer

CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: {target}
{more}
metric_list:
{metrics}
"""
ITEMS = [
    {"question": "The state space model reads", "options": [" a text", " the bytes"], "answer": 1,
     "text": "A state space model reads a text."},
    {"question": "The attention reads the same ", "options": ["text", "model of bytes", "x"],
     "answer": 0, "text": "The attention reads äöü and more of the same text of bytes."},
    {"question": "A text of", "options": [" bytes", " state"], "answer": 0, "text": "語 of bytes"},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with its tokenizer, and three tasks beside it."""
    made = tmp_path_factory.mktemp("harness")
    llama(made)
    tokenizer(made)
    tasks = made / "tasks"
    tasks.mkdir()
    file = tasks / "items.json"
    file.write_text("\n".join(map(json.dumps, ITEMS)))

    def write(name: str, kind: str, target: str, more: str, *metrics: str) -> None:
        listed = "\n".join(f"  - metric: {m}" for m in metrics)
        text = CHOICE.format(name=name, file=file, kind=kind, target=target, more=more,
                             metrics=listed)  # fmt: skip
        (tasks / f"{name}.yaml").write_text(text)

    write("choose", "multiple_choice", "answer", 'doc_to_choice: "{{options}}"', "acc", "acc_norm")
    write("roll", "loglikelihood_rolling", '"{{text}}"', "", "bits_per_byte", "word_perplexity")
    kwargs = 'generation_kwargs: {until: ["q"], max_gen_toks: 8, do_sample: false}'
    write("write", "generate_until", '"{{text}}"', kwargs, "exact_match")
    return made


def ours(folder: Path) -> tuple[LanguageModel, Any]:
    read = Formats(family="transformer", default="huggingface").read(str(folder))
    model = built("transformer", read)
    own = load_tokenizer(str(folder))
    return model, language_model(model, own, torch.device("cpu"))


@pytest.mark.parametrize(("task", "bos"), [("choose", True), ("write", True), ("roll", False)])
def test_requests_are_answered_as_the_harnesss_own_class_does(
    folder: Path, task: str, bos: bool
) -> None:
    """It puts the start symbol before a context where it is told to, before a text always."""
    manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
    theirs = HFLM(pretrained=str(folder), device="cpu", batch_size=1, add_bos_token=bos,
                  dtype="float32")  # fmt: skip
    results = []
    for model in (ours(folder)[1], theirs):
        found = lm_eval.simple_evaluate(
            model=model, tasks=[task], task_manager=manager, bootstrap_iters=0
        )
        assert found is not None
        results.append(found)
    mine, official = results
    assert mine["samples"][task]
    for a, b in zip(mine["samples"][task], official["samples"][task], strict=True):
        for x, y in zip(a["resps"], b["resps"], strict=True):
            for p, q in zip(x, y, strict=True):
                assert p == q if isinstance(p, str) else same(p, q), (p, q)
    for key, value in official["results"][task].items():
        if isinstance(value, float):
            assert mine["results"][task][key] == pytest.approx(value, rel=1e-4), key


def same(p: Any, q: Any) -> bool:
    """A log-likelihood, alone or with whether it is greedy."""
    if isinstance(p, tuple | list):
        return bool(p[0] == pytest.approx(float(q[0]), rel=1e-4) and str(p[1]) == str(q[1]))
    return bool(p == pytest.approx(float(q), rel=1e-4))


def asked(results: Path, folder: Path, *words: str) -> tuple[str, ...]:
    """Arguments of `bench.eval`."""
    return (
        "choose,roll", "--include", str(folder / "tasks"), "model=transformer",
        f"results={results}", "threads=1", *words,
    )  # fmt: skip


def test_scores_are_filed_and_shown(folder: Path, results: Path) -> None:
    done = python("-m", "bench.eval", *asked(results, folder, f"model.pretrained={folder}"))
    assert done.code == 0, done.err
    [made] = records(results)
    scores = {(s["task"], s["metric"]): s for s in made["harness"]["scores"]}
    assert {("choose", "acc"), ("choose", "acc_norm"), ("roll", "bits_per_byte")} <= scores.keys()
    assert scores["choose", "acc"]["items"] == 3
    assert scores["choose", "acc"]["better"] == "higher"
    assert made["harness"]["version"] == lm_eval.__version__
    # Bits per byte by its own rule: all nats over all bytes.
    model, _ = ours(folder)
    own = load_tokenizer(str(folder))
    nats = sum(
        -float(model.log_prob(torch.tensor([own.encode(str(i["text"]))])).nats.detach())
        for i in ITEMS
    )
    size = sum(len(str(item["text"]).encode()) for item in ITEMS)
    assert scores["roll", "bits_per_byte"]["value"] == pytest.approx(
        nats / size / torch.log(torch.tensor(2.0)).item(), rel=1e-4
    )
    assert "bits_per_byte" in done.out
    assert "choose" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scenario.tasks=[chose]"], "chose is no task of lm-evaluation-harness"),
        (
            ["scenario.include=/nowhere", "scenario.tasks=[x]"],
            "scenario.include=/nowhere is no folder",
        ),
    ],
)
def test_refused(folder: Path, results: Path, words: list[str], said: str) -> None:
    done = here(
        "scenario=harness", "task=text", "model=transformer",
        "scenario.own_tasks=false", f"model.pretrained={folder}", f"results={results}", *words,
    )  # fmt: skip
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_random_weights_get_no_score(folder: Path, results: Path) -> None:
    done = here(*asked(results, folder), run=bench.eval.main)
    assert done.code == 0
    assert records(results)[0]["status"] == "unsupported"
    assert "give model.pretrained=FOLDER" in records(results)[0]["reason"]


BROKEN = {
    "corrupt": ("task: [", r"broken\.yaml is no task that lm-evaluation-harness can read"),
    "a metric": ("exact_matches", "cannot be run: "),
    "no data": ("/nowhere.json", "cannot be run: "),
    "a stop word": ('until: [""]', r"a task has until=\[''\]; needed are texts that are not empty"),
    "shots": ("", "cannot be run: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_task_that_cannot_be_run_is_named(name: str, folder: Path, tmp_path: Path) -> None:
    change, said = BROKEN[name]
    text = (folder / "tasks" / "write.yaml").read_text().replace("task: write", "task: broken")
    replaced = {
        "corrupt": (text, change), "a metric": ("exact_match", change),
        "no data": (str(folder / "tasks" / "items.json"), change), "shots": ("", change),
        "a stop word": ('until: ["q"]', change),
    }[name]  # fmt: skip
    (tmp_path / "broken.yaml").write_text(text.replace(*replaced))
    shots = ["scenario.fewshot=9"] if name == "shots" else []
    with pytest.raises(BadInput, match=said):
        payload(
            tmp_path, "scenario=harness", "task=text", "model=transformer", "scenario.limit=1",
            "scenario.own_tasks=false", "scenario.tasks=[broken]", f"scenario.include={tmp_path}",
            f"model.pretrained={folder}", *shots,
        )  # fmt: skip


def test_logits_that_are_not_finite_are_no_score(folder: Path) -> None:
    model, lm = ours(folder)
    with torch.no_grad():
        model.lm_head.weight[0] = torch.nan
    request = Instance("loglikelihood", {}, ("a text", " of"), 0)
    generate = Instance("generate_until", {}, ("a text", {"until": ["q"]}), 0)
    for method, asked in (
        (lm.loglikelihood, request), (lm.loglikelihood_rolling, request),
        (lm.generate_until, generate),
    ):  # fmt: skip
        with pytest.raises(FloatingPointError, match="logits are not finite"):
            method([asked])


@pytest.mark.parametrize(
    "word",
    [
        "limit=0", "limit=-1", "limit=abc", "limit=nan", "limit=1.5", "fewshot=-1", "fewshot=1.5",
        "fewshot=abc", "bootstrap=null", "bootstrap=-1", "tasks=null", "tasks=[3]", "tasks=good",
        "tasks=[]",
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense(word: str) -> None:
    given = [] if word.startswith("tasks") else ["scenario.tasks=[x]"]
    with pytest.raises(
        BadInput, match=rf"scenario\.{word.partition('=')[0]}=.*; (allowed|give)|type"
    ):
        cells("scenario=harness", "task=text", "model=transformer", *given, f"scenario.{word}")
