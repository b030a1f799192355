"""The mixture of experts against transformers' Mixtral, plain routing and hand-computed losses."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from models.backbones.moe import (
    CHECKPOINT_NAMES,
    Experts,
    MoE,
    SparseMLP,
    load_balancing_loss,
    router_z_loss,
)
from models.objectives.autoregressive import LanguageModel

CPU = torch.device("cpu")


def build(**changed: object) -> MoE:
    """A small one whose output projections are not zero."""
    values: dict = {
        "d_model": 48,
        "n_layers": 2,
        "n_heads": 6,
        "n_kv_heads": 2,
        "d_expert": 20,
        "n_experts": 8,
        "top_k": 2,
        "d_shared": 12,
        "balance_weight": 0.01,
        "z_weight": 0.001,
        "attention": "sdpa",
        "causal": True,
        "qk_norm": True,
        "rope_theta": 10000.0,
        "norm_eps": 1e-6,
        "residual_init": 1.0,
    }
    torch.manual_seed(0)
    return MoE(**{**values, **changed})


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def every_expert(experts: Experts, x: Tensor, chosen: Tensor, gates: Tensor) -> Tensor:
    """The plain reference: every expert on every token, then the chosen ones added."""
    outputs = torch.stack([(F.silu(x @ g.T) * (x @ u.T)) @ d for g, u, d in experts.each()], 1)
    weight = torch.zeros(len(x), experts.n_experts, dtype=x.dtype).scatter(1, chosen, gates)
    return torch.einsum("ne,ned->nd", weight, outputs)


def to_mixtral(model: LanguageModel) -> dict[str, Tensor]:
    """Our state dictionary under Mixtral's names and in its shapes."""
    state: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        for ours, theirs in CHECKPOINT_NAMES.items():
            if key.startswith(ours):
                state[theirs + key.removeprefix(ours)] = value
    for key in [key for key in state if key.endswith("experts.gate_proj")]:
        base = key.removesuffix("gate_proj")
        gate, up, down = (
            state.pop(base + name).unflatten(0, (8, -1))  # (E, F, D)
            for name in ("gate_proj", "up_proj", "down_proj")
        )
        state[base + "gate_up_proj"] = torch.cat((gate, up), 1)  # (E, 2F, D)
        state[base + "down_proj"] = down.transpose(1, 2)  # (E, D, F)
    return state


def test_logits_equal_those_of_mixtral() -> None:
    backbone = build(qk_norm=False, d_shared=0)
    ours = LanguageModel(backbone=backbone, vocab_size=50, init="backbone").eval()
    nn.init.normal_(ours.lm_head.weight)
    theirs = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=50,
            hidden_size=48,
            intermediate_size=20,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            num_local_experts=8,
            num_experts_per_tok=2,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=False,
            sliding_window=None,
        )
    ).eval()
    theirs.load_state_dict(to_mixtral(ours), strict=True)
    tokens = torch.randint(50, (3, 100), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = theirs(tokens, output_router_logits=True)
        torch.testing.assert_close(ours.next_logits(tokens), expected.logits, atol=1e-4, rtol=0)
        # Of one layer the library's balancing loss, which sums over the k choices, is k times ours.
        # is k times ours.
        router = expected.router_logits[0]
        probs = router.softmax(-1)
    # Of one layer the library's balancing loss, which sums over the k choices, is k times ours.
    library = load_balancing_loss_func((router,), 8, 2)
    ours_loss = load_balancing_loss(probs, probs.topk(2).indices)
    torch.testing.assert_close(2 * ours_loss, library)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.booleans())
def test_grouped_equals_every_expert(tokens: int, top_k: int, skewed: bool) -> None:
    torch.manual_seed(tokens)
    experts = Experts(d_model=12, d_expert=7, n_experts=5, residual_init=1.0).double()
    probs = (torch.randn(tokens, 5).double() + (9.0 * torch.eye(5)[0] if skewed else 0)).softmax(-1)
    values, chosen = probs.topk(top_k)
    x, gates = noise(tokens, 12).requires_grad_(), values.requires_grad_()
    leaves = (x, gates, *experts.parameters())
    fast, plain = experts(x, chosen, gates), every_expert(experts, x, chosen, gates)
    torch.testing.assert_close(fast, plain)
    a = torch.autograd.grad(fast.sin().sum(), leaves)
    b = torch.autograd.grad(plain.sin().sum(), leaves)
    torch.testing.assert_close(a, b)


@torch.no_grad()
def test_batch_of_one_equals_batch_of_many() -> None:
    model = build().double().eval()
    x = noise(6, 40, 48)
    together = model(x)[0]
    alone = torch.cat([model(row.unsqueeze(0))[0] for row in x])
    torch.testing.assert_close(alone, together, atol=1e-12, rtol=1e-12)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_pieces_equal_the_whole_with_gradients(pieces: list[int]) -> None:
    model = build().double()
    x = noise(2, sum(pieces), 48)
    state = model.init_state(2, device=CPU, dtype=x.dtype)
    out = []
    for piece in x.split(pieces, 1):
        if piece.shape[1] == 1:
            hidden, state = model.step(piece[:, 0], state)
            hidden = hidden.unsqueeze(1)
        else:
            hidden, state = model.prefill(piece, state)
        out.append(hidden)
    whole, parts = model(x)[0], torch.cat(out, 1)
    torch.testing.assert_close(parts, whole, atol=1e-9, rtol=0)
    weight = noise(*whole.shape)
    a = torch.autograd.grad((whole * weight).sum(), list(model.parameters()))
    b = torch.autograd.grad((parts * weight).sum(), list(model.parameters()))
    torch.testing.assert_close(b, a, atol=1e-6, rtol=1e-3)


@torch.no_grad()
def test_later_tokens_change_nothing_earlier() -> None:
    model = build().double()
    x = noise(2, 20, 48)
    changed = x.clone()
    changed[:, 12:] += 1
    moved = (model(changed)[0] - model(x)[0]).abs().amax((0, 2))
    assert moved[12:].min() > 1e-3
    assert moved[:12].max() < 1e-9


def test_load_balancing_loss_of_known_routings() -> None:
    uniform = torch.full((8, 4), 0.25)
    balanced = torch.tensor([[0, 1], [2, 3]] * 4)
    assert load_balancing_loss(uniform, balanced).item() == pytest.approx(1.0)
    # All tokens to one expert, with certainty: E for k = 1, and E / k for k > 1.
    certain = torch.eye(4)[0].expand(8, 4)
    assert load_balancing_loss(certain, torch.zeros(8, 1, dtype=torch.long)) == pytest.approx(4.0)
    assert load_balancing_loss(certain, torch.tensor([[0, 1]] * 8)).item() == pytest.approx(2.0)
    # By hand: f = (3/4, 1/4), P = (0.6, 0.4): 2 (0.45 + 0.1) = 1.1.
    probs = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    assert load_balancing_loss(probs, probs.argmax(1, keepdim=True)).item() == pytest.approx(1.1)


def test_router_z_loss_of_known_logits() -> None:
    assert router_z_loss(torch.zeros(5, 8)).item() == pytest.approx(math.log(8) ** 2)
    logits = torch.tensor([[0.0, math.log(3.0)], [1.0, 1.0]])
    by_hand = (math.log(4) ** 2 + (1 + math.log(2)) ** 2) / 2
    assert router_z_loss(logits).item() == pytest.approx(by_hand)


def test_auxiliary_losses_are_weighted_and_reach_the_router() -> None:
    x = noise(2, 30, 48, dtype=torch.float32)
    once, twice = build()(x)[1], build(balance_weight=0.02, z_weight=0.003)(x)[1]
    assert set(once) == {"load_balancing", "router_z"}
    torch.testing.assert_close(2 * once["load_balancing"], twice["load_balancing"])
    torch.testing.assert_close(3 * once["router_z"], twice["router_z"])
    assert 0.005 < once["load_balancing"].item() < 0.04
    model = build()
    sum(model(x)[1].values()).backward()  # type: ignore[union-attr]
    assert all(block.mlp.gate.weight.grad.abs().sum() > 0 for block in model.layers)


def test_inactive_parameters_are_those_of_the_experts_not_chosen() -> None:
    mlp = SparseMLP(d_model=12, d_expert=7, n_experts=5, top_k=2, d_shared=3, residual_init=0.0)
    assert mlp.inactive_parameters() == 3 * 3 * 7 * 12
    mlp.experts.down_proj.data.normal_()
    mlp(noise(1, 12, dtype=torch.float32)).sum().backward()
    used = sum(int((p.grad != 0).any(1).sum()) for p in mlp.experts.parameters())
    assert used == 2 * 3 * 7  # rows of the two chosen experts alone
    assert mlp.flops(2, 10) == 2 * 20 * (2 * 3 * 7 * 12 + 5 * 12 + 3 * 3 * 12)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"top_k": 9}, "top_k=9 must lie between 1 and n_experts=8"),
        ({"top_k": 0}, "top_k=0"),
        ({"d_expert": 0}, "d_expert is 0"),
        ({"d_shared": -1}, "d_shared=-1"),
    ],
)
def test_wrong_values_are_named(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changed)
