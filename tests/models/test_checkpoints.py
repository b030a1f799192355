"""Checkpoints that the official classes wrote, read here, and the way back."""

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from models.backbones.mamba import Mamba
from models.backbones.mamba2 import Mamba2
from models.backbones.moe import MoE
from models.backbones.rwkv7 import RWKV7
from models.backbones.transformer import Transformer
from models.backbones.transformers_decoder import TransformersDecoder
from models.checkpoints.checkpoint import Checkpoint
from models.checkpoints.formats import Formats
from models.objectives.autoregressive import LanguageModel

VOCAB = 41
ATTENTION = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 3,
    "eos_token_id": 4, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
SSM = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8,
    "bos_token_id": 3, "eos_token_id": 4, "pad_token_id": None,
}  # fmt: skip
# Family of ours, type of the library, its configuration.
OFFICIAL: list[tuple[str, str, dict[str, Any]]] = [
    ("transformer", "llama", ATTENTION),
    ("transformer", "llama", {**ATTENTION, "tie_word_embeddings": True}),
    ("transformer", "mistral", {**ATTENTION, "sliding_window": None}),
    ("transformer", "qwen3", ATTENTION),
    ("moe", "mixtral", {**ATTENTION, "sliding_window": None, "num_local_experts": 4}),
    (
        "moe",
        "qwen3_moe",
        {
            **ATTENTION, "num_local_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True,
            "moe_intermediate_size": 12,
        },
    ),
    ("mamba", "mamba", {**SSM, "tie_word_embeddings": True}),
    ("mamba2", "mamba2", {**SSM, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 16}),
    ("hf", "gpt2", {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 2,
                    "bos_token_id": 3, "eos_token_id": 4}),
    ("hf", "gemma", {**ATTENTION, "tie_word_embeddings": True}),  # scales its embedding
    ("hf", "mamba", SSM),
]  # fmt: skip
FORMS = dict.fromkeys(("transformer", "moe", "hf"), "huggingface") | {
    "mamba": "state_spaces", "mamba2": "state_spaces", "rwkv": "blinkdl",
}  # fmt: skip
OURS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "transformer": (Transformer, {"attention": "sdpa", "causal": True, "residual_init": 1.0}),
    "moe": (MoE, {"attention": "sdpa", "causal": True, "residual_init": 1.0,
                  "balance_weight": 0.0, "z_weight": 0.0}),
    "mamba": (Mamba, {"kernel": "auto", "residual_init": "scaled"}),
    "mamba2": (Mamba2, {"kernel": "auto", "residual_init": "scaled"}),
    "rwkv": (RWKV7, {"kernel": "auto", "chunk": 32}),
    "hf": (TransformersDecoder, {}),
}  # fmt: skip


def formats(family: str) -> Formats:
    return Formats(family=family, default=FORMS[family])


def official(kind: str, options: dict[str, Any]) -> Any:
    """A small model of the library whose every tensor is off its special initial value."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options)).eval()
    scattered(model)
    return model


def scattered(model: nn.Module) -> None:
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))


def built(family: str, checkpoint: Checkpoint) -> LanguageModel:
    """Our model with what was read."""
    constructor, rest = OURS[family]
    backbone: Any = constructor(**{**rest, **checkpoint.arguments})
    model = LanguageModel(backbone=backbone, vocab_size=checkpoint.vocab_size, init="backbone")
    checkpoint.load(model)
    return model.eval()


def tokens(length: int = 33) -> Tensor:
    return torch.randint(VOCAB, (2, length), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def greedy(model: LanguageModel, prompt: Tensor, count: int) -> Tensor:
    """What the model itself goes on with after `prompt`, no start symbol, by its state."""
    state = model.backbone.init_state(len(prompt), device=prompt.device, dtype=torch.float32)
    logits, state = model.prefill(prompt, state)
    written = [logits[:, -1].argmax(-1)]
    while len(written) < count:
        step, state = model.step(written[-1], state)
        written.append(step.argmax(-1))
    return torch.stack(written, 1)


@pytest.mark.parametrize(("family", "kind", "options"), OFFICIAL)
@torch.no_grad()
def test_official_folder_logits_and_continuation(
    family: str, kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    theirs = official(kind, options)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = built(family, formats(family).read(str(tmp_path / "theirs")))
    x = tokens()
    expected = theirs(x).logits
    torch.testing.assert_close(ours.next_logits(x), expected, atol=2e-4, rtol=1e-4)
    assert expected.std() > 1e-2
    # The first symbol is predicted from the library's own begin of a text.
    first = theirs(torch.full((2, 1), 3)).logits[:, 0]
    torch.testing.assert_close(ours(tokens=x).logits[:, 0], first, atol=2e-4, rtol=1e-4)
    written = theirs.generate(x, max_new_tokens=12, min_new_tokens=12, do_sample=False,
                              eos_token_id=None, pad_token_id=0)  # fmt: skip
    assert torch.equal(greedy(ours, x, 12), written[:, x.shape[1] :])


@pytest.mark.parametrize(("family", "kind", "options"), OFFICIAL)
def test_round_trip_through_the_library_is_exact(
    family: str, kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    theirs = official(kind, options)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = built(family, formats(family).read(str(tmp_path / "theirs")))
    formats(family).write(ours, tmp_path / "ours", "huggingface")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    assert again.state_dict().keys() == theirs.state_dict().keys() or kind == "mistral"
    if kind == "gemma":  # its factor goes in and out of the table, which is no longer the read-out
        x = tokens()
        torch.testing.assert_close(again(x).logits, theirs(x).logits, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(again.state_dict(), theirs.state_dict(), atol=1e-7, rtol=1e-6)
        return
    for name, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize("family", ["mamba", "mamba2"])
def test_state_spaces_format_round_trips_and_reads_the_pickled_one(
    family: str, tmp_path: Path
) -> None:
    kind, options = next((k, o) for f, k, o in OFFICIAL if f == family)
    theirs = official(kind, options)
    theirs.save_pretrained(tmp_path / "hf")
    ours = built(family, formats(family).read(str(tmp_path / "hf")))
    formats(family).write(ours, tmp_path / "own")
    assert_same(built(family, formats(family).read(str(tmp_path / "own"))), ours)
    # As the authors release it: their names, pickled, the table padded, no start symbol.
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    weights = load_file(tmp_path / "own" / "model.safetensors")
    assert ("lm_head.weight" in weights) == (family == "mamba2")
    table = weights["backbone.embedding.weight"]
    weights["backbone.embedding.weight"] = torch.cat([table, table.new_zeros(48 - VOCAB, 32)])
    if family == "mamba2":
        head = weights["lm_head.weight"]
        weights["lm_head.weight"] = torch.cat([head, head.new_zeros(48 - VOCAB, 32)])
    (tmp_path / "released").mkdir()
    config["pad_vocab_size_multiple"] = 16
    (tmp_path / "released" / "config.json").write_text(json.dumps(config))
    torch.save(weights, tmp_path / "released" / "pytorch_model.bin")
    released = built(family, formats(family).read(str(tmp_path / "released")))
    torch.testing.assert_close(
        released.next_logits(tokens())[..., :VOCAB], ours.next_logits(tokens())
    )


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
    backbone = Mamba(d_model=32, n_layers=2, d_state=8, d_conv=4, norm_eps=1e-5, d_inner=64,
                     dt_rank=2, kernel="auto", residual_init="scaled")  # fmt: skip
    model = LanguageModel(backbone=backbone, vocab_size=VOCAB, init="backbone")
    formats("mamba").write(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    refused("mamba", tmp_path, words)


@pytest.mark.parametrize("form", ["state_spaces", "huggingface"])
def test_a_start_file_holds_the_start_symbol_alone(form: str, tmp_path: Path) -> None:
    backbone = Mamba(d_model=32, n_layers=1, d_state=8, d_conv=4, norm_eps=1e-5, d_inner=64,
                     dt_rank=2, kernel="auto", residual_init="scaled")  # fmt: skip
    model = LanguageModel(backbone=backbone, vocab_size=VOCAB, init="backbone")
    formats("mamba").write(model, tmp_path, form)
    start = load_file(tmp_path / "start.safetensors")
    save_file({**start, "lm_head.weight": torch.zeros(VOCAB, 32)}, tmp_path / "start.safetensors")
    refused("mamba", tmp_path, r"holds lm_head\.weight, start\.weight; needed is start\.weight")


def assert_same(a: nn.Module, b: nn.Module) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, value in a.state_dict().items():
        assert torch.equal(b.state_dict()[name], value), name


def rwkv(folder: Path, layers: int = 2) -> tuple[LanguageModel, Path]:
    torch.manual_seed(0)
    backbone = RWKV7(d_model=32, n_layers=layers, head_size=16, d_ff=80, decay_rank=4, rate_rank=5,
                     value_rank=3, gate_rank=6, chunk=16, kernel="auto")  # fmt: skip
    model = LanguageModel(backbone=backbone, vocab_size=VOCAB, init="backbone").eval()
    scattered(model)
    formats("rwkv").write(model, folder / "rwkv.pth")
    return model, folder / "rwkv.pth"


PACKAGE = """
import sys, torch
from rwkv.model import RWKV_x070
path, out = sys.argv[1:]
model = RWKV_x070(path, "cpu fp32")
given = torch.load(out, weights_only=True).tolist()
logits, state = model.forward(given, None, full_output=True)
written, last = [], logits[-1]
for _ in range(12):
    written.append(int(last.argmax()))
    last, state = model.forward([written[-1]], state)
torch.save({"logits": logits, "written": torch.tensor(written)}, out)
"""


@torch.no_grad()
def test_the_rwkv_package_reads_what_we_write(tmp_path: Path) -> None:
    model, path = rwkv(tmp_path)
    again = built("rwkv", formats("rwkv").read(str(path)))
    assert_same(again, model)
    torch.save(tokens()[0], tmp_path / "out.pt")
    subprocess.run(
        [sys.executable, "-c", PACKAGE, str(path.with_suffix("")), str(tmp_path / "out.pt")],
        env={**os.environ, "RWKV_V7_ON": "1"}, check=True, capture_output=True,
    )  # fmt: skip
    package = torch.load(tmp_path / "out.pt", weights_only=True)
    torch.testing.assert_close(
        again.next_logits(tokens()[:1])[0], package["logits"], atol=1e-4, rtol=0
    )
    assert torch.equal(greedy(again, tokens()[:1], 12)[0], package["written"])


def refused(family: str, path: Path, words: str) -> None:
    """Reading, or loading what was read, ends in one sentence."""
    with pytest.raises(ValueError, match=words) as caught:
        built(family, formats(family).read(str(path)))
    assert len(str(caught.value).splitlines()) == 1


def llama(folder: Path, **changes: Any) -> Path:
    official("llama", {**ATTENTION, **changes}).save_pretrained(folder)
    return folder


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
    file = llama(tmp_path) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
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
    file = llama(tmp_path) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    refused("transformer", tmp_path, words)


@pytest.mark.parametrize("family", ["moe", "hf"])
@pytest.mark.parametrize("chosen", [0, 5])
def test_no_more_experts_are_chosen_than_there_are(
    family: str, chosen: int, tmp_path: Path
) -> None:
    options = next(options for _, kind, options in OFFICIAL if kind == "mixtral")
    official("mixtral", options).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_experts_per_tok": chosen}))
    refused(family, tmp_path, f"its num_experts_per_tok is {chosen}; needed are 1 to 4")


def test_an_unknown_activation_is_named(tmp_path: Path) -> None:
    file = llama(tmp_path) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_act": "nosuch"}))
    refused("hf", tmp_path, "cannot be read: unknown name 'nosuch'")


def test_a_pickled_folder_of_other_things_is_not_advised_to_be_run(tmp_path: Path) -> None:
    (llama(tmp_path) / "model.safetensors").unlink()
    torch.save({"a": Command()}, tmp_path / "pytorch_model.bin")
    refused("hf", tmp_path, r"pytorch_model\.bin holds other things than named tensors")


@pytest.mark.parametrize(("family", "kind", "options"), OFFICIAL)
def test_what_was_read_does_not_need_its_folder(
    family: str, kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    official(kind, options).save_pretrained(tmp_path / "theirs")
    read = formats("hf").read(str(tmp_path / "theirs"))
    assert read.arguments["name"] == kind
    json.dumps(read.arguments, allow_nan=False)
    shutil.rmtree(tmp_path / "theirs")
    built("hf", read)


class Command:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/archbench-was-run",)


def test_nothing_that_a_pickle_holds_is_run(tmp_path: Path) -> None:
    _, path = rwkv(tmp_path)
    weights = torch.load(path, weights_only=True)
    refused("mamba", path, "needs a folder with a config.json")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("rwkv", path, "cannot be read|holds other things")
    path.write_bytes(pickle.dumps(Command()))
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
    assert not Path("/tmp/archbench-was-run").exists()


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


def test_a_name_of_the_hub_is_read_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = llama(tmp_path / "snapshot")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(folder))
    assert formats("transformer").read("somebody/llama").path == folder


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


def test_version_of_the_library_is_what_the_names_were_read_from() -> None:
    """Names of types, which a later version may change."""
    for _, kind, _ in OFFICIAL:
        assert kind in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
