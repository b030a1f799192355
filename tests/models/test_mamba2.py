"""Mamba-2: the chunked form against the plain recurrence, and the model against transformers."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Mamba2Config, Mamba2ForCausalLM

from models.backbones.mamba2 import CHECKPOINT_NAMES, Mamba2
from models.backbones.ssd import ssd_chunked, ssd_reference
from models.objectives.autoregressive import LanguageModel
from tests.zoo import SIZES, node


def scan_inputs(length: int, heads: int, groups: int, dtype: torch.dtype) -> list[Tensor]:
    """x, delta, A, B, C, D, state of `ssd_reference`, all asking for gradients."""
    g = torch.Generator().manual_seed(length)
    normal = partial(torch.randn, generator=g, dtype=dtype)
    tensors = [
        normal(2, length, heads, 3),
        torch.rand(2, length, heads, generator=g, dtype=dtype) * 0.3,
        -torch.arange(1, heads + 1, dtype=dtype),
        normal(2, length, groups, 5),
        normal(2, length, groups, 5),
        normal(heads),
        normal(2, heads, 3, 5),
    ]
    return [t.requires_grad_() for t in tensors]


def small(kernel: str = "torch", **changes: object) -> Mamba2:
    options = {
        "d_model": 16,
        "n_layers": 2,
        "nheads": 4,
        "headdim": 6,
        "d_state": 5,
        "ngroups": 1,
        "d_conv": 4,
        "chunk_size": 8,
        "negative_eigenvalues": False,
        "norm_eps": 1e-5,
        "kernel": kernel,
        "residual_init": "scaled",
        **changes,
    }
    return Mamba2(**options)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 50),
    chunk=st.integers(1, 20),
    groups=st.sampled_from([1, 2, 4]),
    with_state=st.booleans(),
)
def test_chunked_form_equals_the_recurrence(
    length: int, chunk: int, groups: int, with_state: bool
) -> None:
    inputs = scan_inputs(length, 4, groups, torch.float64)
    leaves = inputs if with_state else inputs[:-1]
    weights = torch.randn(2, length, 4, 3, dtype=torch.float64)
    results = []
    for function in (ssd_reference, partial(ssd_chunked, chunk=chunk)):
        y, last = function(*inputs[:-1], inputs[-1] if with_state else None)
        loss = (y * weights).sum() + last.square().sum()
        results.append([y, last, *torch.autograd.grad(loss, leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_gradcheck_of_the_chunked_form() -> None:
    inputs = scan_inputs(7, 2, 1, torch.float64)
    torch.autograd.gradcheck(partial(ssd_chunked, chunk=3), inputs)


def test_strong_decay_does_not_overflow() -> None:
    inputs = scan_inputs(64, 4, 1, torch.float32)
    with torch.no_grad():
        inputs[1] *= 1000
    y, last = ssd_chunked(*inputs, chunk=32)
    grads = torch.autograd.grad(y.sum() + last.sum(), inputs)
    assert all(t.isfinite().all() for t in (y, last, *grads))
    # Differences of cumulative sums, as in the official kernel: their rounding grows with the sums,
    # here thousands, so that a decay keeps about three digits.
    expected, _ = ssd_reference(*inputs)
    assert (y - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("ngroups", [1, 2])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_parallel_pieces_and_steps_agree(ngroups: int, data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    torch.manual_seed(sum(pieces))
    model, x = small(ngroups=ngroups), torch.randn(2, sum(pieces), 16)
    with torch.no_grad():
        whole, losses = model(x)
        state = model.init_state(2, device=x.device, dtype=x.dtype)
        parts = []
        for piece in x.split(pieces, dim=1):
            hidden, state = model.prefill(piece, state)
            parts.append(hidden)
        stepped, other = [], model.init_state(2, device=x.device, dtype=x.dtype)
        for t in range(x.shape[1]):
            hidden, other = model.step(x[:, t], other)
            stepped.append(hidden)
        alone = model(x[:1])[0]
    assert losses == {}
    close = partial(torch.testing.assert_close, rtol=0, atol=2e-5)
    close(torch.cat(parts, 1), whole)
    close(torch.stack(stepped, 1), whole)
    close(alone, whole[:1])
    for a, b in zip(state, other, strict=True):
        close(a.window, b.window)
        close(a.ssm, b.ssm)
    held = sum(t.numel() * t.element_size() for layer in state for t in layer)
    assert held == model.state_bytes(2, x.shape[1], torch.float32)


def test_gradients_of_the_model_equal_those_of_stepping() -> None:
    torch.manual_seed(0)
    model, x = small(), torch.randn(2, 21, 16)
    weights = torch.randn(2, 21, 16)
    parameters = list(model.parameters())
    fast = torch.autograd.grad((model(x)[0] * weights).sum(), parameters)
    state, out = model.init_state(2, device=x.device, dtype=x.dtype), []
    for t in range(21):
        hidden, state = model.step(x[:, t], state)
        out.append(hidden)
    slow = torch.autograd.grad((torch.stack(out, 1) * weights).sum(), parameters)
    largest = max(g.norm().item() for g in slow)
    for a, b in zip(fast, slow, strict=True):
        assert (a - b).norm().item() < 1e-3 * largest


def test_a_later_symbol_changes_nothing_before_it() -> None:
    torch.manual_seed(0)
    model, x = small(), torch.randn(1, 30, 16)
    changed = x.clone()
    changed[:, 17] += 1
    with torch.no_grad():
        a, b = model(x)[0], model(changed)[0]
    assert torch.equal(a[:, :17], b[:, :17])
    assert not torch.equal(a[:, 17], b[:, 17])


@pytest.mark.parametrize("ngroups", [1, 2])
def test_logits_equal_those_of_transformers(ngroups: int) -> None:
    torch.manual_seed(0)
    config = Mamba2Config(
        vocab_size=61,
        hidden_size=32,
        num_heads=8,
        head_dim=8,
        state_size=16,
        n_groups=ngroups,
        num_hidden_layers=3,
        chunk_size=16,
    )
    theirs = Mamba2ForCausalLM(config).eval()
    backbone = small(
        d_model=32, n_layers=3, nheads=8, headdim=8, d_state=16, ngroups=ngroups, chunk_size=8
    )
    ours = LanguageModel(backbone=backbone, vocab_size=61, init="backbone")
    weights = {}
    for name, value in ours.state_dict().items():
        for mine, official in CHECKPOINT_NAMES.items():
            if name.startswith(mine):
                # transformers spells `embeddings` what the official checkpoint calls `embedding`.
                full = (official + name.removeprefix(mine)).replace("embedding.", "embeddings.")
                weights[full] = value
    assert {k: v.shape for k, v in weights.items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    theirs.load_state_dict(weights)
    tokens = torch.randint(61, (2, 45))
    with torch.no_grad():
        expected = theirs(tokens).logits
        torch.testing.assert_close(ours.next_logits(tokens), expected, rtol=0, atol=1e-4)
    assert expected.std() > 1e-2


def test_initialisation_is_the_official_one() -> None:
    mixer = small(nheads=512).layers[0].mixer
    delta = nn.functional.softplus(mixer.dt_bias)
    assert 1e-4 <= delta.min() < 2e-3
    assert 0.05 < delta.max() <= 0.1 + 1e-6
    rates = mixer.A_log.exp()
    assert 1 <= rates.min() < 2
    assert 15 < rates.max() <= 16.001
    assert (mixer.D == 1).all()
    assert mixer.dt_bias._no_weight_decay


def test_flops_equal_torchs_count_on_the_matrix_products() -> None:
    model, x = small(), torch.randn(2, 24, 16)  # three whole chunks
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    E, N, H = 24, 5, 4
    # The recurrence over chunks and everything by element are no matrix products.
    rest = 5 * 16 * 3 + 16 * 2 + 2 * (2 * 4 * (E + 2 * N) + 4 * 8 * H + 2 * E * N // 8 + 9 * E)
    assert model.flops(2, 24) - 48 * rest == counter.get_total_flops()


def test_instantiates_without_memory() -> None:
    with torch.device("meta"):
        model = small()
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in small().parameters()
    )


def test_half_precision_keeps_the_state_wide() -> None:
    torch.manual_seed(0)
    model, x = small(), torch.randn(2, 20, 16)
    with torch.no_grad():
        exact = model(x)[0]
        half = model.bfloat16()
        state = half.init_state(2, device=x.device, dtype=torch.bfloat16)
        assert state[0].ssm.dtype == torch.float32
        out, state = half.prefill(x.bfloat16(), state)
        stepped, _ = half.step(x[:, 0].bfloat16(), state)
    assert out.dtype == stepped.dtype == torch.bfloat16
    assert (out - exact).abs().max() < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"ngroups": 3}, "multiple of ngroups, 3"),
        ({"residual_init": "one"}, "residual_init is 'one'"),
    ],
)
def test_bad_values_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


PROBES = ("micro128", "micro256", "micro512")  # 17 D² parameters in two layers leave no whole one


@pytest.mark.parametrize("size", sorted(SIZES.keys() - PROBES))
def test_every_size_can_be_written_as_a_checkpoint(size: str) -> None:
    """mamba_ssm and transformers hold an expansion that is a whole number."""
    backbone = node("mamba2", "language", size)["backbone"]
    assert backbone["nheads"] * backbone["headdim"] == 2 * backbone["d_model"]
