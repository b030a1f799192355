"""Checkpoints that cannot be read or written: one sentence, and nothing of them is run."""

import pickle
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.backbones.transformers_decoder import TransformersDecoder
from models.objectives.autoregressive import LanguageModel
from tests.models.checkpoints import (
    ATTENTION,
    OFFICIAL,
    OURS,
    SSM,
    VOCAB,
    Command,
    built,
    formats,
    llama,
    official,
    refused,
    rwkv,
    small_mamba,
    with_config,
)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    good = llama(tmp_path / "llama")
    refused("mamba", good, "of type llama; model=mamba needs mamba; set model=transformer or model")
    refused("rwkv", good, "of type llama; model=rwkv needs another format")
    refused("transformer", tmp_path, r"holds no config\.json and no \.pth file")
    weights = load_file(good / "model.safetensors")

    def changed(name: str, tensors: dict[str, Tensor]) -> Path:
        folder = llama(tmp_path / name)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    key = "model.layers.1.mlp.up_proj.weight"
    lacking = {k: v for k, v in weights.items() if k != key}
    refused("transformer", changed("lacking", lacking), r"lacks model\.layers\.1\.mlp\.up_proj")
    refused("transformer", changed("wrong", {**weights, key: weights[key][:-1].contiguous()}),
            r"up_proj\.weight is of shape \(47, 32\); needed is \(48, 32\)")  # fmt: skip
    cut = llama(tmp_path / "cut")
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused("transformer", cut, r"cut/model\.safetensors cannot be read")
    (cut / "model.safetensors").unlink()
    refused("transformer", cut, r"holds neither model\.safetensors nor pytorch_model\.bin")
    refused("transformer", llama(tmp_path / "bias", attention_bias=True),
            "its attention_bias is True; ours computes False; model=hf")  # fmt: skip
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    refused("transformer", llama(tmp_path / "rope", rope_parameters=scaled), "of type linear")
    (good / "config.json").write_text("{")
    refused("transformer", good, "config.json cannot be read")


KEY = "model.layers.1.self_attn.q_proj"
UP = "model.layers.1.mlp.up_proj.weight"
ODD_TENSORS: list[tuple[dict[str, Tensor], str]] = [
    ({f"{KEY}.bias": torch.ones(32)}, rf"holds {KEY}\.bias, which its config\.json has no place"),
    ({"model.layers.2.input_layernorm.weight": torch.ones(32)}, r"holds model\.layers\.2\."),
    (
        {UP: torch.ones(48, 32, dtype=torch.int32)},
        r"up_proj.* is of torch\.int32; needed are floats",
    ),
]


@pytest.mark.parametrize("family", ["transformer", "hf"])
@pytest.mark.parametrize(("changes", "words"), ODD_TENSORS)
def test_every_tensor_of_a_folder_is_a_weight(
    family: str, changes: dict[str, Tensor], words: str, tmp_path: Path
) -> None:
    file = llama(tmp_path) / "model.safetensors"
    save_file({**load_file(file), **changes}, file, metadata={"format": "pt"})
    refused(family, tmp_path, words)


ODD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    (
        {"num_hidden_layers": 1},
        r"holds model\.layers\.1\..* which its config\.json has no place for",
    ),
    ({"num_hidden_layers": 10**9}, "has 1000000000 layers, and its files hold 21 tensors"),
    ({"num_hidden_layers": -1}, "config.json cannot be read: its num_hidden_layers is -1; needed"),
    ({"num_hidden_layers": "2"}, "config.json cannot be read: .*num_hidden_layers"),
    ({"num_hidden_layers": None}, "config.json cannot be read: .*num_hidden_layers"),
    ({"num_attention_heads": 0}, "config.json cannot be read: integer modulo by zero"),
    ({"hidden_size": -32}, "its hidden_size is -32; needed is a whole number above 0"),
    ({"vocab_size": 10**12}, "its config.json needs .* numbers, and its files hold"),
    ({"rms_norm_eps": "x"}, "config.json cannot be read: .*rms_norm_eps"),
    ({"rope_parameters": [1]}, "config.json cannot be read"),
    (
        {"quantization_config": {"quant_method": "nosuch"}},
        "weights are quantised; needed are floats",
    ),
    ({"model_type": "t5"}, "of type t5; model=.* needs|cannot be read"),
]


@pytest.mark.parametrize("family", ["transformer", "hf"])
@pytest.mark.parametrize(("changes", "words"), ODD_CONFIGS)
def test_a_configuration_is_held_against_its_files(
    family: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with_config(llama(tmp_path), changes)
    refused(family, tmp_path, words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 64}, "its head_dim is 8; ours computes 16"),
        ({"model_type": "bert"}, "of type bert; .* no model here reads it"),
        ({"model_type": "t5"}, "of type t5; .* no model here reads it"),
        ({"model_type": "gpt2"}, "of type gpt2; .* set model=hf$"),
    ],
)
def test_the_cure_is_one(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with_config(llama(tmp_path), changes)
    refused("transformer", tmp_path, words)


@pytest.mark.parametrize("family", ["moe", "hf"])
@pytest.mark.parametrize("chosen", [0, 5])
def test_no_more_experts_are_chosen_than_there_are(
    family: str, chosen: int, tmp_path: Path
) -> None:
    options = next(options for _, kind, options in OFFICIAL if kind == "mixtral")
    official("mixtral", options).save_pretrained(tmp_path)
    with_config(tmp_path, {"num_experts_per_tok": chosen})
    refused(family, tmp_path, f"its num_experts_per_tok is {chosen}; needed are 1 to 4")


def test_an_unknown_activation_is_named(tmp_path: Path) -> None:
    with_config(llama(tmp_path), {"hidden_act": "nosuch"})
    refused("hf", tmp_path, "cannot be read: unknown name 'nosuch'")


ODD_SIZES: list[tuple[dict[str, Any], str]] = [
    ({"n_layer": 10**9}, "its n_layer is 1000000000; its file holds 2 layers"),
    ({"n_layer": 1}, "its n_layer is 1; its file holds 2 layers"),
    ({"n_layer": "2"}, "config.json cannot be read: its n_layer is '2'; needed is a whole number"),
    ({"d_model": {"_target_": "os.getcwd"}}, "its d_model is {'_target_'"),
    ({"vocab_size": None}, "its vocab_size is None; needed is a whole number above 0"),
    ({"ssm_cfg": [1]}, "config.json cannot be read"),
    ({"ssm_cfg": {"d_state": 0}}, "its d_state is 0; needed is a whole number above 0"),
    ({"ssm_cfg": {"expand": "a"}}, "its expand is 'a'; needed is a number above 0"),
    ({"d_model": 10**9}, r"is of shape \(64, 8\); its config.json needs \(2000000000, 8\)"),
    ({"ssm_cfg": {"d_state": 10**9}}, r"A_log is of shape .* needs \(64, 1000000000\)"),
]


@pytest.mark.parametrize(("changes", "words"), ODD_SIZES)
def test_sizes_of_state_spaces_are_held_against_the_tensors(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    formats("mamba").write(small_mamba(), tmp_path)
    with_config(tmp_path, changes)
    refused("mamba", tmp_path, words)


@pytest.mark.parametrize("form", ["state_spaces", "huggingface"])
def test_a_start_file_holds_the_start_symbol_alone(form: str, tmp_path: Path) -> None:
    formats("mamba").write(small_mamba(layers=1), tmp_path, form)
    start = load_file(tmp_path / "start.safetensors")
    save_file({**start, "lm_head.weight": torch.zeros(VOCAB, 32)}, tmp_path / "start.safetensors")
    refused("mamba", tmp_path, r"holds lm_head\.weight, start\.weight; needed is start\.weight")


def test_a_pickled_folder_of_other_things_is_not_advised_to_be_run(tmp_path: Path) -> None:
    (llama(tmp_path) / "model.safetensors").unlink()
    torch.save({"a": Command(tmp_path / "was-run")}, tmp_path / "pytorch_model.bin")
    refused("hf", tmp_path, r"pytorch_model\.bin holds other things than named tensors")
    assert not (tmp_path / "was-run").exists()


def test_nothing_that_a_pickle_holds_is_run(tmp_path: Path) -> None:
    _, path = rwkv(tmp_path)
    weights = torch.load(path, weights_only=True)
    refused("mamba", path, "needs a folder with a config.json")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("rwkv", path, "cannot be read|holds other things")
    path.write_bytes(pickle.dumps(Command(tmp_path / "was-run")))
    refused("rwkv", path, "holds other things than named tensors")
    torch.save({"model": weights}, path)
    refused("rwkv", path, "holds other things than named tensors")
    torch.save({k: v for k, v in weights.items() if k != "blocks.1.ffn.value.weight"}, path)
    refused("rwkv", path, r"lacks backbone\.blocks\.1\.ffn\.value\.weight")
    torch.save(
        {"emb.weight": weights["emb.weight"], "blocks.0.att.time_decay": torch.ones(3)}, path
    )
    refused("rwkv", path, "an RWKV before 7")
    torch.save({"layer.weight": torch.ones(3)}, path)
    refused("rwkv", path, r"lacks emb\.weight: a checkpoint of another family")
    assert not (tmp_path / "was-run").exists()


def test_models_that_are_more_than_a_linear_read_out_are_refused(tmp_path: Path) -> None:
    capped = {**ATTENTION, "final_logit_softcapping": 0.1}
    official("gemma2", capped).save_pretrained(tmp_path)
    refused("hf", tmp_path, "more than embedding, decoder and linear read-out")


def test_models_that_are_more_are_not_saved(tmp_path: Path) -> None:
    """Of Cohere's class the logits have a factor, which a read-out of ours has not."""
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
    backbone = TransformersDecoder(name="cohere", options=small, small={})
    model = LanguageModel(backbone=backbone, vocab_size=VOCAB, init="scaled")
    nn.init.normal_(model.lm_head.weight)
    with pytest.raises(ValueError, match="a folder of cohere cannot hold it: CohereForCausalLM is"):
        formats("hf").write(model, tmp_path / "saved")
    assert model.training
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("family", ["mamba2", "moe"])
def test_what_a_format_has_no_place_for(family: str, tmp_path: Path) -> None:
    kind, options = next((k, o) for f, k, o in OFFICIAL if f == family)
    official(kind, options).save_pretrained(tmp_path / "theirs")
    checkpoint = formats(family).read(str(tmp_path / "theirs"))
    if family == "moe":
        checkpoint.arguments["d_shared"] = 8
        words = "a shared expert has no counterpart"
    else:
        checkpoint.arguments["nheads"] = 6
        words = "whole multiple"
    constructor, rest = OURS[family]
    model = LanguageModel(
        backbone=constructor(**{**rest, **checkpoint.arguments}),  # type: ignore[arg-type]
        vocab_size=VOCAB, init="backbone",
    )  # fmt: skip
    for form in ("huggingface", *(["state_spaces"] if family == "mamba2" else [])):
        with pytest.raises(ValueError, match=words):
            formats(family).write(model, tmp_path / form, form)


@pytest.mark.parametrize(
    ("family", "form"), [("mamba", "state_spaces"), ("mamba", "huggingface"), ("rwkv", "blinkdl")]
)
def test_a_disk_that_takes_no_more(family: str, form: str, tmp_path: Path) -> None:
    if family == "rwkv":
        model, _ = rwkv(tmp_path)
    else:
        official("mamba", SSM).save_pretrained(tmp_path / "theirs")
        model = built(family, formats(family).read(str(tmp_path / "theirs")))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(ValueError, match=r"cannot be written: .*(large|error 27)") as caught:
            formats(family).write(model, tmp_path / "saved", form)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(str(caught.value).splitlines()) == 1


def test_a_name_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("transformer", tmp_path / "none" / "of" / "them", "no file, no folder and no name")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    refused("transformer", Path("nobody/has-this"), "no file and no folder, and the hub does not")
