"""Values that the user sets inside a model: taken, or refused in one sentence."""

import json
import math
from pathlib import Path

import pytest
import timm
import torch

from bench import building
from bench.agreement import Agreement
from bench.errors import BadInput
from tests.runner.cells import cells, payload
from tests.small import llama, tokenizer


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("model.backbone.options={patch_size: 4}", {"patch_size": 4}),
        ("model.backbone.options.patch_size=4", {"patch_size": 4}),
        ("+model.backbone.options.patch_size=4", {"patch_size": 4}),
    ],
)
def test_options_of_a_library_are_taken(words: str, value: dict[str, int]) -> None:
    [cell] = cells("model=timm", "task=digits", "scenario=prefill", words)
    assert cell.config["model"]["backbone"]["options"] == value
    assert cell.name.endswith(f" · {words.lstrip('+')}")


def test_a_key_that_stands_for_another_is_taken() -> None:
    """The shared expert's width is the model's, which the size gives."""
    one = ("model=moe", "task=text", "scenario=prefill")
    [none] = cells(*one, "model.backbone.d_shared=0")
    assert none.config["model"]["backbone"]["d_shared"] == 0
    assert "model.backbone.d_shared=0" in none.part["overrides"]
    [same] = cells(*one, "model.backbone.d_shared=96")
    assert not any("d_shared" in text for text in same.part["overrides"]), "it is the default"


@pytest.mark.parametrize(
    ("model", "word", "said"),
    [
        ("moe", "model.backbone.d_shared=x", "allowed: a whole number, as 96"),
        ("hf", "model.backbone.name=null", "allowed: a word, as qwen3"),
        ("hf", "model.backbone.name=3", "allowed: a word, as qwen3"),
        ("hf", "model.backbone.name=[a,b]", "allowed: a word, as qwen3"),
        ("hf", "model.backbone.options=3", "allowed: a mapping, as {}"),
        ("hf", "model.backbone.options=null", "allowed: a mapping, as {}"),
    ],
)
def test_a_value_of_another_type_is_refused(model: str, word: str, said: str) -> None:
    with pytest.raises(BadInput, match=r"is of the wrong type; " + said):
        cells(f"model={model}", "task=text", "scenario=prefill", word)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("timm", "unexpected keyword argument 'nosuch'"),
        ("hf", r"options\.nosuch is no option of Qwen3Config"),
    ],
)
def test_an_added_option_that_a_library_does_not_know(
    model: str, said: str, tmp_path: Path
) -> None:
    words = (f"model={model}", "task=digits", "scenario=prefill")
    with pytest.raises(BadInput, match=f"model={model}: .*{said}"):
        payload(tmp_path, *words, "+model.backbone.options.nosuch=3")


@pytest.mark.parametrize("value", ["[0]", "[-5]", "[]", "[a]", "3", "null", "[1.5]", "[true]"])
def test_lengths_that_cannot_be_read(value: str) -> None:
    with pytest.raises(BadInput, match=r"scenario\.lengths.* such as \[128,256\]"):
        cells("scenario=context", "task=text", "model=transformer", f"scenario.lengths={value}")


@pytest.mark.parametrize("value", ["0", "-1", "null"])
@pytest.mark.parametrize("scenario", ["train", "prefill"])
def test_a_batch_that_cannot_be(value: str, scenario: str) -> None:
    words = (f"scenario={scenario}", "task=text", "model=transformer", f"task.batch_size={value}")
    with pytest.raises(BadInput, match=r"task\.batch_size=.*; allowed: whole numbers from 1"):
        cells(*words)


@pytest.mark.parametrize("scenario", ["train", "quality"])
def test_a_kernel_without_gradients_is_not_trained(scenario: str, tmp_path: Path) -> None:
    words = ("model=transformer", "task=digits", f"scenario={scenario}")
    found = payload(tmp_path, *words, "model.backbone.attention=flex")
    assert found["status"] == "unsupported"
    assert found["reason"].startswith("attention=flex has no backward on cpu; use attention=sdpa")


@pytest.mark.parametrize("model", ["mamba", "mamba2"])
def test_a_type_that_a_backend_does_not_compute_in(model: str, tmp_path: Path) -> None:
    words = (f"model={model}", "task=digits", "scenario=prefill", "dtype=bfloat16")
    found = payload(tmp_path, *words, "backend=transformers")
    assert found["status"] == "unsupported"
    assert "backend=transformers: without CUDA kernels it runs in float32" in found["reason"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"config\.json cannot be read: .* not a valid JSON file"),
        ("null", r"config\.json cannot be read: "),
        (
            json.dumps({"model_type": "llama", "num_attention_heads": 0}),
            "config.json cannot be read: integer division or modulo by zero",
        ),
    ],
)
def test_a_folder_whose_configuration_is_broken(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    name = f"model.backbone.name={tmp_path}"
    with pytest.raises(BadInput, match=f"model=hf: .*{said}"):
        payload(tmp_path, "model=hf", "task=text", "scenario=prefill", name)


def test_weights_that_are_not_finite_are_no_model(tmp_path: Path) -> None:
    """Their times would stand in a table, and a harness would score them."""
    tokenizer(tmp_path)
    model = llama(tmp_path)
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    model.save_pretrained(tmp_path)
    words = ("model=transformer", "task=text", "scenario=prefill")
    with pytest.raises(BadInput, match=r"numbers in backbone\.norm\.weight that are not finite"):
        payload(tmp_path, *words, f"model.pretrained={tmp_path}")


def test_a_librarys_weights_that_are_not_finite_are_no_model_either(tmp_path: Path) -> None:
    network = timm.create_model("resnet18", in_chans=1, num_classes=10)
    with torch.no_grad():
        network.conv1.weight[0] = torch.inf
    timm.models.save_for_hf(network, tmp_path)
    words = (f"model.backbone.name={tmp_path}", "model.backbone.weights=true")
    with pytest.raises(BadInput, match=r"model=timm: .* numbers in backbone\.conv1\.weight that"):
        payload(tmp_path, "model=timm", "task=digits", "scenario=prefill", *words)


def test_logits_that_are_not_finite_agree_with_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "agreement", lambda *_: Agreement(math.nan, math.nan, 1))
    words = ("model=transformer", "task=digits", "scenario=prefill", "backend=transformers")
    found = payload(tmp_path, *words)
    assert found["status"] == "failed"
    assert found["reason"] == (
        "backend=transformers: its logits or ours are not finite; it is not timed"
    )
