"""Decoders of the transformers library as backbones: states, folders, our Transformer's numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, LlamaConfig

from bench.meters.allocator import nbytes
from bench.meters.memory import tensors_in
from models.backbones.transformer import Transformer
from models.backbones.transformers_decoder import TransformersDecoder

ATTENTION = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32,
}  # fmt: skip
TYPES: dict[str, dict[str, Any]] = {
    "qwen3": ATTENTION,
    "llama": ATTENTION,
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2},
    "mistral": {**ATTENTION, "sliding_window": 200},
    "gemma3_text": {**ATTENTION, "sliding_window": 16},
    "mamba": {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},
    "mamba2": {
        "hidden_size": 64, "num_hidden_layers": 2, "state_size": 16, "num_heads": 4,
        "head_dim": 32, "n_groups": 1,
    },
    "bert": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 96,
    },
}  # fmt: skip


def backbone(name: str) -> TransformersDecoder:
    torch.manual_seed(0)
    return TransformersDecoder(name=name, options=TYPES[name], small={}).eval()


def symbols(model: TransformersDecoder, length: int) -> Tensor:
    return torch.randn(2, length, model.d_model, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", TYPES)
@torch.no_grad()
def test_pieces_and_steps_continue_the_parallel_form(name: str) -> None:
    model = backbone(name)
    x = symbols(model, 40)
    whole, losses = model(x)
    assert not losses
    state = model.init_state(2, device=x.device, dtype=x.dtype)
    pieces = []
    for piece in x[:, :30].split([1, 12, 17], 1):
        y, state = model.prefill(piece, state)
        pieces.append(y)
    held = nbytes(tensors_in(state))
    for t in range(30, 40):
        y, state = model.step(x[:, t], state)
        pieces.append(y[:, None])
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-4, rtol=1e-4)
    stated = model.state_bytes(2, 30, torch.float32)
    if name == "gemma3_text":  # a window is a view into the keys of the last piece
        assert stated < held
    else:
        assert held == pytest.approx(stated, abs=64)  # the library counts symbols in tensors


@pytest.mark.parametrize("name", TYPES)
@torch.no_grad()
def test_the_past_alone_is_seen(name: str) -> None:
    model = backbone(name)
    x = symbols(model, 20)
    changed = x.clone()
    changed[:, 12:] += 1
    torch.testing.assert_close(model(changed)[0][:, :12], model(x)[0][:, :12])


@torch.no_grad()
def test_llama_is_our_transformer_before_and_after_a_crop() -> None:
    theirs = backbone("llama")
    ours = Transformer(
        d_model=64, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=96, attention="sdpa", causal=True,
        qk_norm=False, mlp="swiglu", rope_theta=10000.0, norm_eps=1e-6, residual_init=1.0,
    ).eval()  # fmt: skip
    ours.load_state_dict(theirs.model.state_dict())
    x = symbols(theirs, 40)
    torch.testing.assert_close(theirs(x)[0], ours(x)[0])
    assert theirs.d_model == ours.d_model
    outputs = []
    for model in (theirs, ours):
        _, state = model.prefill(x[:, :25], model.init_state(2, device=x.device, dtype=x.dtype))  # type: ignore[operator]
        state = model.crop(state, 10)  # type: ignore[operator]
        piece, state = model.prefill(x[:, 25:33], state)  # type: ignore[operator]
        last, _ = model.step(x[:, 33], state)  # type: ignore[operator]
        outputs.append(torch.cat([piece, last[:, None]], 1))
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_all_keys_can_be_forgotten() -> None:
    model = backbone("llama")
    x = symbols(model, 12)
    _, state = model.prefill(x, model.init_state(2, device=x.device, dtype=x.dtype))
    assert all(layer.keys.shape[2] == 0 for layer in model.crop(state, 0).cache.layers)


def test_of_a_folder_the_configuration_is_read(tmp_path: Path) -> None:
    LlamaConfig(**ATTENTION, vocab_size=5000, dtype="bfloat16").save_pretrained(tmp_path)
    model = TransformersDecoder(name=str(tmp_path), options={"num_hidden_layers": 3}, small={})
    assert AutoConfig.from_pretrained(tmp_path).num_hidden_layers == 2
    assert len(model.model.layers) == 3
    assert model.d_model == 64
    assert {p.dtype for p in model.parameters()} == {torch.float32}, (
        "whatever the folder was kept in"
    )
    assert not any("embed" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("/", {}, "neither a folder with a config.json"),
        ("qwen33", {}, "neither a folder with a config.json nor a model type of transformers"),
        ("vit", {}, "of type vit, which is no causal decoder"),
        ("qwen3", {"hiden_size": 64}, r"options\.hiden_size is no option of Qwen3Config"),
    ],
)
def test_what_cannot_be_is_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TransformersDecoder(name=name, options=options, small={})


def test_defaults_of_a_small_model_where_a_type_knows_them() -> None:
    small = {"hidden_size": 96, "intermediate_size": 204, "num_hidden_layers": 3,
             "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 32}  # fmt: skip
    for name in ("qwen3", "llama", "gpt2", "gemma3_text", "mamba", "mistral", "olmo2", "phi3"):
        model = TransformersDecoder(name=name, options={}, small=small)
        assert model.d_model == 96
        assert 50_000 < sum(p.numel() for p in model.parameters()) < 1_000_000, name
    wide = TransformersDecoder(name="gpt2", options={"n_embd": 48}, small=small)
    assert wide.d_model == 48


@torch.no_grad()
def test_learned_positions_end() -> None:
    model = TransformersDecoder(name="gpt2", options=TYPES["gpt2"] | {"n_positions": 16}, small={})
    x = symbols(model, 17)
    _, state = model.prefill(x[:, :16], model.init_state(2, device=x.device, dtype=x.dtype))
    assert (model.longest, backbone("llama").longest, backbone("bert").longest) == (16, None, 512)
    sentence = "gpt2 has 16 positions, the start symbol's among them, and 17 are asked for"
    with pytest.raises(ValueError, match=sentence):
        model(x)
    with pytest.raises(ValueError, match=sentence):
        model.step(x[:, 16], state)
