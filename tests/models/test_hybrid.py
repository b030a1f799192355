"""Any pattern of mixers: one stack, whose attention is the Transformer's and whose forms agree."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.constants import TOLERANCE
from bench.meters.allocator import nbytes
from bench.meters.memory import tensors_in
from bench.sizes import count_on_meta, fit
from models.backbones.hybrid import Hybrid
from models.backbones.transformer import Transformer
from tests.zoo import SIZES, randomise, resolved

MIXERS = ("attention", "mamba", "mamba2", "mamba3", "rwkv", "gated_delta")
PATTERNS = [[name] for name in MIXERS] + [
    ["mamba", "rwkv", "attention", "mamba2", "mamba3"],
    ["gated_delta", "gated_delta", "gated_delta", "attention"],  # of Qwen3-Next
]


def instantiate(tree: dict[str, Any]) -> nn.Module:
    from hydra.utils import instantiate as hydra_instantiate

    return hydra_instantiate(tree, _convert_="all")


def node(mixers: list[str], size: str = "nano", **changes: Any) -> dict[str, Any]:
    """The language model's node with a pattern of `mixers` and its feed-forward width solved."""
    model = resolved("hybrid", "language", size)
    model["backbone"]["pattern"] = mixers
    model["kinds"]["language"]["model"]["backbone"]["pattern"] = mixers
    solved = copy.deepcopy(fit(model, "language", size, SIZES[size], instantiate))
    solved["backbone"] |= changes
    return solved


def backbone(pattern: list[str], **changes: Any) -> Hybrid:
    torch.manual_seed(0)
    built = instantiate(node(pattern, **changes)["backbone"])
    assert isinstance(built, Hybrid)
    return randomise(built).double().eval()  # type: ignore[return-value]


def symbols(model: Hybrid, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, length, model.d_model, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("pattern", PATTERNS, ids="+".join)
@torch.no_grad()
def test_pieces_and_steps_continue_the_parallel_form(pattern: list[str]) -> None:
    model = backbone(pattern)
    x = symbols(model, 41)
    whole, losses = model(x)
    assert not losses
    state = model.init_state(2, device=x.device, dtype=x.dtype)
    pieces = []
    for piece in x[:, :30].split([1, 12, 17], 1):
        y, state = model.prefill(piece, state)
        pieces.append(y)
    assert nbytes(tensors_in(state)) == model.state_bytes(2, 30, torch.float64)
    for t in range(30, 41):
        y, state = model.step(x[:, t], state)
        pieces.append(y[:, None])
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("pattern", PATTERNS, ids="+".join)
@pytest.mark.parametrize("size", SIZES)
def test_the_feed_forward_width_brings_any_pattern_to_size(pattern: list[str], size: str) -> None:
    solved = node(pattern, size)
    numbers = count_on_meta(lambda: instantiate(solved))
    assert abs(numbers.matched - SIZES[size]) <= TOLERANCE * SIZES[size]


def test_layers_follow_the_pattern() -> None:
    model = backbone(["mamba2", "attention"], n_layers=5)
    names = [layer.mixer.__class__.__name__ for layer in model._layers()]
    assert names == ["Mamba2Mixer", "AttentionMixer"] * 2 + ["Mamba2Mixer"]
    assert set(model.kernel_used.split("+")) <= {"numba", "torch", "sdpa"}
    assert len(instantiate(node(["rwkv"], pattern="rwkv")["backbone"]).layers) == 6  # type: ignore[arg-type]


@torch.no_grad()
def test_attention_alone_is_the_transformer() -> None:
    """Which is held to transformers' own Llama elsewhere."""
    hybrid = backbone(["attention"])
    attention = hybrid._layers().__iter__().__next__().mixer.attention  # type: ignore[attr-defined]
    transformer = Transformer(
        d_model=hybrid.d_model, n_layers=len(hybrid.layers), n_heads=attention.n_heads,
        n_kv_heads=attention.n_kv_heads, d_ff=hybrid.layers[0].mlp.up_proj.out_features,  # type: ignore[union-attr]
        attention="sdpa", causal=True, qk_norm=True, mlp="swiglu", rope_theta=10000.0,
        norm_eps=1e-6, residual_init=0.0,
    ).double().eval()  # fmt: skip
    names = {
        "mixer_norm.": "input_layernorm.", "mlp_norm.": "post_attention_layernorm.",
        "mixer.attention.": "self_attn.",
    }  # fmt: skip
    weights = {}
    for name, value in hybrid.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name] = value
    transformer.load_state_dict(weights)
    x = symbols(hybrid, 50)
    torch.testing.assert_close(hybrid(x)[0], transformer(x)[0])
    assert hybrid.flops(2, 50) == transformer.flops(2, 50)
    assert hybrid.state_bytes(2, 50, x.dtype) == transformer.state_bytes(2, 50, x.dtype)


@torch.no_grad()
def test_a_new_layer_changes_nothing_yet() -> None:
    """Output projections start at zero, whatever the mixer: what comes out is the norm's."""
    for pattern in PATTERNS:
        model = instantiate(node(pattern)["backbone"]).double()
        x = symbols(model, 9)
        torch.testing.assert_close(model(x)[0], model.norm(x))


@torch.no_grad()
def test_only_attention_forgets() -> None:
    model = backbone(["mamba2", "attention"], n_layers=2)
    x = symbols(model, 70)
    _, state = model.prefill(x, model.init_state(2, device=x.device, dtype=x.dtype))
    held = nbytes([state[0].window, state[0].ssm])
    state = model.crop(state, 7)
    assert state[1].cache.stop - state[1].cache.start == 7
    assert nbytes([state[0].window, state[0].ssm]) == held
    y, _ = model.step(x[:, 0], state)
    assert y.isfinite().all()


def only(name: str, **changes: Any) -> dict[str, Any]:
    """A hybrid of one mixer with other options."""
    options = resolved("hybrid", "language", "nano")["backbone"][name]
    return {"pattern": [name], name: options | changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pattern": ["mamba4"]}, "pattern names 'mamba4'; allowed are attention, mamba, mamba2"),
        ({"pattern": []}, "allowed are one mixer or more"),
        ({"n_layers": 1}, "its end is never used"),
        ({"pattern": ["mamba2", "mamba2", "attention"], "n_layers": 2}, "its end is never used"),
        ({"pattern": ["attention"] * 7}, "7 mixers and n_layers is 6, so that its end is never"),
        ({"pattern": None}, "pattern is None; allowed is a list of attention"),
        ({"pattern": 3}, "pattern is 3; allowed is a list"),
        ({"pattern": [["attention"]]}, "allowed is a list"),
        ({"n_layers": 10**9}, "it can be at most 10000"),
        ({"d_model": 0}, "d_model is 0"),
        (only("attention", n_heads=3), "attention: d_model=64 must be n_heads=3 times"),
        (only("mamba", expand=0), "mamba: expand is 0"),
        (only("mamba2", headdim=48), "mamba2: headdim is 48; it has to divide .* all heads, 128"),
        (only("mamba3", d_state=3), "mamba3: d_state is 3"),
        (only("rwkv", head_size=24), "rwkv: head_size is 24; it has to divide .* all heads, 64"),
        (only("gated_delta", num_v_heads=3), "num_v_heads is 3; .* multiple of num_k_heads, 2"),
        (only("gated_delta", head_k_dim=0), "gated_delta: head_k_dim is 0"),
        (only("gated_delta", kernel="numba", head_k_dim=16), "is 16 and head_v_dim 32"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        instantiate(node(["mamba2", "attention"], **changes)["backbone"])


def test_every_mixer_trains_beside_others() -> None:
    names = list(MIXERS)
    for pattern in zip(names, names[1:] + names[:1], strict=True):  # a ring: each beside two others
        model = backbone(list(pattern), n_layers=2).float().train()
        x = symbols(model, 20).float()
        model(x)[0].square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
