"""The Transformer against transformers' Llama, its kernels and its forms against each other."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from models.backbones.attention import KVCache, rotate
from models.backbones.norm import RMSNorm
from models.backbones.transformer import CHECKPOINT_NAMES, Transformer
from models.objectives.autoregressive import LanguageModel

CPU = torch.device("cpu")


def build(**changed: object) -> Transformer:
    """A small one whose output projections are not zero."""
    values: dict = {
        "d_model": 48,
        "n_layers": 2,
        "n_heads": 6,
        "n_kv_heads": 2,
        "d_ff": 40,
        "attention": "sdpa",
        "causal": True,
        "qk_norm": True,
        "mlp": "swiglu",
        "rope_theta": 10000.0,
        "norm_eps": 1e-6,
        "residual_init": 1.0,
    }
    torch.manual_seed(0)
    model = Transformer(**{**values, **changed})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def in_pieces(model: Transformer, x: Tensor, pieces: list[int]) -> Tensor:
    """Hidden vectors when the sequence is read in pieces; a piece of one is a step."""
    state = model.init_state(x.shape[0], device=CPU, dtype=x.dtype)
    out = []
    for piece in x.split(pieces, 1):
        if piece.shape[1] == 1:
            hidden, state = model.step(piece[:, 0], state)
            hidden = hidden.unsqueeze(1)
        else:
            hidden, state = model.prefill(piece, state)
        out.append(hidden)
    return torch.cat(out, 1)


def rename(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Ours -> the library's, by prefix; the start symbol has no counterpart."""
    return {
        theirs + key.removeprefix(ours): value
        for key, value in state.items()
        for ours, theirs in names.items()
        if key.startswith(ours)
    }


@pytest.mark.parametrize("n_kv_heads", [1, 2, 6])
def test_logits_equal_those_of_llama(n_kv_heads: int) -> None:
    backbone = build(qk_norm=False, n_kv_heads=n_kv_heads)
    ours = LanguageModel(backbone=backbone, vocab_size=50, init="backbone").eval()
    nn.init.normal_(ours.lm_head.weight)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=48,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=n_kv_heads,
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
        )
    ).eval()
    theirs.load_state_dict(rename(ours.state_dict(), CHECKPOINT_NAMES), strict=True)
    tokens = torch.randint(50, (3, 700), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(
            ours.next_logits(tokens), theirs(tokens).logits, atol=1e-4, rtol=0
        )
    loss, reference = (
        ours.next_logits(tokens).square().mean(),
        theirs(tokens).logits.square().mean(),
    )
    loss.backward()
    reference.backward()
    expected = dict(theirs.named_parameters())
    for key, parameter in rename(dict(ours.named_parameters()), CHECKPOINT_NAMES).items():
        close(parameter.grad, expected[key].grad)


def close(a: Tensor | None, b: Tensor | None) -> None:
    """Within a thousandth of the largest entry."""
    assert a is not None
    assert b is not None
    assert (a - b).abs().max() <= 1e-3 * b.abs().max() + 1e-12


@pytest.mark.parametrize("causal", [True, False])
def test_eager_equals_sdpa_forward_and_backward(causal: bool) -> None:
    a, b = build(causal=causal), build(causal=causal, attention="eager")
    x = noise(2, 70, 48)
    hidden, reference = a(x)[0], b(x)[0]
    torch.testing.assert_close(hidden, reference, atol=1e-5, rtol=1e-5)
    hidden.square().sum().backward()
    reference.square().sum().backward()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        close(p.grad, q.grad)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_flex_equals_sdpa_in_inference(causal: bool) -> None:
    a, b = build(causal=causal), build(causal=causal, attention="flex")
    x = noise(2, 150, 48)
    torch.testing.assert_close(b(x)[0], a(x)[0], atol=1e-5, rtol=1e-5)
    if causal:
        torch.testing.assert_close(in_pieces(b, x, [70, 1, 79]), a(x)[0], atol=1e-5, rtol=1e-5)


def test_flex_says_that_it_cannot_train_on_cpu() -> None:
    with pytest.raises(ValueError, match="attention=flex has no backward on cpu"):
        build(attention="flex")(noise(1, 5, 48))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_causal_looks_back_only_and_the_encoder_both_ways(attention: str) -> None:
    x = noise(2, 20, 48)
    changed = x.clone()
    changed[:, 12:] += 1
    for causal in (True, False):
        model = build(causal=causal, attention=attention)
        moved = (model(changed)[0] - model(x)[0]).abs().amax((0, 2))
        assert moved[12:].min() > 1e-3
        assert bool((moved[:12] < 1e-5).all()) is causal


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=6), st.sampled_from(["eager", "sdpa"]))
def test_pieces_equal_the_whole(pieces: list[int], attention: str) -> None:
    model = build(attention=attention, mlp="relu2")
    x = noise(2, sum(pieces), 48)
    with torch.no_grad():
        whole = model(x)[0]
        torch.testing.assert_close(in_pieces(model, x, pieces), whole, atol=1e-4, rtol=0)


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 40), st.integers(0, 30))
def test_gradients_of_the_recurrent_form_equal_the_parallel_ones(steps: int, first: int) -> None:
    a = build()
    b = copy.deepcopy(a)
    x = noise(2, first + steps, 48)
    weight = noise(2, first + steps, 48)
    (a(x)[0] * weight).sum().backward()
    pieces = ([first] if first else []) + [1] * steps
    (in_pieces(b, x, pieces) * weight).sum().backward()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        close(q.grad, p.grad)


@torch.no_grad()
def test_window_sees_its_last_keys_at_their_absolute_positions() -> None:
    # With one layer the window is exactly attention to the last keys and the new one.
    model, window = build(n_layers=1), 20
    x = noise(2, 300, 48)
    state = model.init_state(2, device=CPU, dtype=x.dtype)
    for t in range(300):
        hidden, state = model.step(x[:, t], model.crop(state, window))
        if t % 37 == 0 or t > 290:
            seen = x[:, max(0, t - window) : t + 1]
            # Rotary scores depend on distances alone, so the window may be read from position 0.
            torch.testing.assert_close(hidden, model(seen)[0][:, -1], atol=1e-4, rtol=0)
    assert state.position == 300
    assert state.layers[0].k.shape[2] <= KVCache.capacity_for(window + 1 + KVCache.BLOCK)


@pytest.mark.parametrize("context", [0, 1, 64, 65, 200])
@torch.no_grad()
def test_state_bytes_are_those_of_the_cache(context: int) -> None:
    model = build()
    state = model.init_state(3, device=CPU, dtype=torch.float32)
    for _ in range(context):
        _, state = model.step(noise(3, 48), state)
    held = sum(t.untyped_storage().nbytes() for c in state.layers for t in (c.k, c.v))
    assert held == model.state_bytes(3, context, torch.float32)
    assert model.state_bytes(3, context, torch.bfloat16) * 2 == held


def test_flops_are_those_that_torch_counts() -> None:
    model = build(causal=False, attention="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(noise(2, 30, 48))
    assert counter.get_total_flops() == model.flops(2, 30)
    # Causal attention needs half the pairs and the diagonal.
    pairs = 2 * 2 * 4 * 48 * (30 * 30 - 30 * 31 // 2)
    assert model.flops(2, 30) - build().flops(2, 30) == pairs


def test_rms_norm_equals_torch_forward_and_backward() -> None:
    norm = RMSNorm(24, 1e-3).double()
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = noise(3, 5, 24, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: norm(y), (x,))
    reference = nn.functional.rms_norm(x, (24,), norm.weight, 1e-3)
    torch.testing.assert_close(norm(x), reference)
    expected = torch.autograd.grad(reference.sin().sum(), norm.weight)
    torch.testing.assert_close(torch.autograd.grad(norm(x).sin().sum(), norm.weight), expected)


def test_rotation_is_that_of_complex_numbers_both_ways() -> None:
    rope = build().rope.double()
    cos, sin = rope(3, 600)
    x = noise(2, 597, 4, rope.head_dim, dtype=torch.float64)
    plain = rotate(x, cos, sin)
    real, imaginary = x.chunk(2, -1)
    frequency = 10000.0 ** (-torch.arange(0, rope.head_dim, 2).double() / rope.head_dim)
    angle = torch.outer(torch.arange(3, 600).double(), frequency).unsqueeze(1)
    turned = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angle), angle)
    torch.testing.assert_close(plain, torch.cat((turned.real, turned.imag), -1), atol=2e-4, rtol=0)
    x.requires_grad_()
    torch.testing.assert_close(rotate(x, cos, sin), plain)
    small = x[:1, :3].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: rotate(y, cos[:3], sin[:3]), (small,))


def test_encoder_has_no_recurrent_form() -> None:
    model = build(causal=False)
    with pytest.raises(ValueError, match="causal=False has no recurrent form"):
        model.init_state(1, device=CPU, dtype=torch.float32)
    state = build().init_state(1, device=CPU, dtype=torch.float32)
    for call in (
        lambda: model.prefill(noise(1, 2, 48), state),
        lambda: model.step(noise(1, 48), state),
    ):
        with pytest.raises(ValueError, match="causal=False has no recurrent form"):
            call()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attention": "flash"}, "allowed: eager, sdpa, flex"),
        ({"n_heads": 5}, "d_model=48 must be n_heads=5"),
        ({"n_heads": 0}, "n_heads=0"),
        ({"n_kv_heads": 4}, "n_kv_heads=4 must divide n_heads=6"),
        ({"mlp": "gelu"}, "allowed: swiglu, relu2"),
        ({"d_ff": 0}, "d_ff is 0"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"n_layers": 10**9}, "n_layers is 1000000000; it can be at most 10000"),
    ],
)
def test_wrong_values_are_named(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changed)
