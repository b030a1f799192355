"""Mamba-1: the fast scans against the plain recurrence, and the model against transformers."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import MambaConfig, MambaForCausalLM

from models.backbones.causal_conv import CausalConv, causal_conv_reference
from models.backbones.mamba import CHECKPOINT_NAMES, Mamba
from models.backbones.selective_scan import (
    recurrence_chunked,
    recurrence_loop,
    selective_scan_reference,
    selective_scan_torch,
)
from models.objectives.autoregressive import LanguageModel
from tests.models.kernels import KERNELS

Scan = Callable[..., tuple[Tensor, Tensor]]


def scan_inputs(batch: int, length: int, channels: int, size: int, dtype: torch.dtype) -> list:
    """u, delta, A, B, C, D, z, state of `selective_scan_reference`, all asking for gradients."""
    g = torch.Generator().manual_seed(length)
    normal = partial(torch.randn, generator=g, dtype=dtype)
    rows = -torch.arange(1, size + 1, dtype=dtype).repeat(channels, 1)
    tensors = [
        normal(batch, length, channels),
        torch.rand(batch, length, channels, generator=g, dtype=dtype) * 0.3,
        rows + 0.1 * normal(channels, size),
        normal(batch, length, size),
        normal(batch, length, size),
        normal(channels),
        normal(batch, length, channels),
        normal(batch, channels, size),
    ]
    return [t.requires_grad_() for t in tensors]


def values_and_grads(function: Scan, inputs: list[Tensor]) -> list[Tensor]:
    y, last = function(*inputs)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, last, *torch.autograd.grad((y * weights).sum() + last.square().sum(), inputs)]


def assert_equal(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1.0, b.abs().max().item()))


def small(kernel: str = "torch", **changes: int) -> Mamba:
    sizes = {"d_model": 16, "n_layers": 2, "d_inner": 24, "d_state": 4, "d_conv": 4}
    options = {"selective": True, "negative_eigenvalues": False, "dt_rank": None, "norm_eps": 1e-5}
    return Mamba(**sizes | options | changes, kernel=kernel, residual_init="scaled")


@pytest.mark.parametrize("recurrence", [recurrence_loop, recurrence_chunked])
@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 70), size=st.integers(1, 5))
def test_torch_scan_equals_the_recurrence(recurrence: Callable, length: int, size: int) -> None:
    inputs = scan_inputs(2, length, 3, size, torch.float64)
    fast = values_and_grads(partial(selective_scan_torch, recurrence=recurrence), inputs)
    assert_equal(fast, values_and_grads(selective_scan_reference, inputs), 1e-10)


@pytest.mark.parametrize("recurrence", [recurrence_loop, recurrence_chunked])
def test_gradcheck_of_the_scan(recurrence: Callable) -> None:
    inputs = scan_inputs(1, 7, 2, 3, torch.float64)
    torch.autograd.gradcheck(partial(selective_scan_torch, recurrence=recurrence), inputs)


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 9), width=st.integers(2, 5))
def test_convolution_equals_conv1d(kernel: str, length: int, width: int) -> None:
    conv = CausalConv(channels=3, width=width, bias=True, kernel=kernel).double()
    x = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    window = torch.randn(2, width - 1, 3, dtype=torch.float64, requires_grad=True)
    inputs = [x, conv.weight, conv.bias, window]
    ours, theirs = conv(x, window), causal_conv_reference(x, conv.weight, conv.bias, window)
    weights = torch.randn_like(ours)
    assert_equal(
        [ours, *torch.autograd.grad((ours * weights).sum(), inputs)],
        [theirs, *torch.autograd.grad((theirs * weights).sum(), inputs)],
        1e-10,
    )
    torch.testing.assert_close(conv(x), conv(x, torch.zeros_like(window)))
    torch.testing.assert_close(conv.step(x[:, 0], window)[0], ours[:, 0])


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_parallel_pieces_and_steps_agree(kernel: str, data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    torch.manual_seed(sum(pieces))
    model, x = small(kernel), torch.randn(2, sum(pieces), 16)
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
    assert losses == {}
    assert_equal([torch.cat(parts, 1), torch.stack(stepped, 1)], [whole, whole], 1e-5)
    for a, b in zip(state, other, strict=True):
        assert_equal(list(a), list(b), 1e-5)
    held = sum(t.numel() * t.element_size() for layer in state for t in layer)
    assert held == model.state_bytes(2, x.shape[1], torch.float32)
    torch.testing.assert_close(model(x[:1])[0], whole[:1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_of_the_model_equal_those_of_stepping(kernel: str) -> None:
    torch.manual_seed(0)
    model, x = small(kernel), torch.randn(2, 21, 16)
    weights = torch.randn(2, 21, 16)
    fast = torch.autograd.grad((model(x)[0] * weights).sum(), list(model.parameters()))
    state, out = model.init_state(2, device=x.device, dtype=x.dtype), []
    for t in range(21):
        hidden, state = model.step(x[:, t], state)
        out.append(hidden)
    slow = torch.autograd.grad((torch.stack(out, 1) * weights).sum(), list(model.parameters()))
    largest = max(g.norm().item() for g in slow)
    for a, b in zip(fast, slow, strict=True):
        assert (a - b).norm().item() < 1e-3 * largest


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_later_symbol_changes_nothing_before_it(kernel: str) -> None:
    torch.manual_seed(0)
    model, x = small(kernel), torch.randn(1, 30, 16)
    changed = x.clone()
    changed[:, 17] += 1
    with torch.no_grad():
        a, b = model(x)[0], model(changed)[0]
    assert torch.equal(a[:, :17], b[:, :17])
    assert not torch.equal(a[:, 17], b[:, 17])


def official_names(model: nn.Module) -> dict[str, Tensor]:
    """The weights under the official checkpoint's names."""
    weights = {}
    for name, value in model.state_dict().items():
        for ours, theirs in CHECKPOINT_NAMES.items():
            if name.startswith(ours):
                weights[theirs + name.removeprefix(ours)] = value
    return weights


@pytest.mark.parametrize("kernel", KERNELS)
def test_logits_equal_those_of_transformers(kernel: str) -> None:
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=61, hidden_size=32, state_size=8, num_hidden_layers=3, tie_word_embeddings=False
    )
    theirs = MambaForCausalLM(config).eval()
    backbone = small(kernel, d_model=32, n_layers=3, d_inner=64, d_state=8)
    ours = LanguageModel(backbone=backbone, vocab_size=61, init="backbone")
    # transformers spells `embeddings` what the official checkpoint calls `embedding`.
    weights = {
        k.replace("backbone.embedding.", "backbone.embeddings."): v
        for k, v in official_names(ours).items()
    }
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
    model = small(d_inner=512, d_state=16)
    mixer = model.layers[0].mixer
    delta = nn.functional.softplus(mixer.dt_proj.bias)
    assert 1e-4 <= delta.min() < 2e-3
    assert 0.05 < delta.max() <= 0.1 + 1e-6
    torch.testing.assert_close(mixer.A_log.exp()[3], torch.arange(1.0, 17.0))
    assert mixer.dt_proj.weight.abs().max() <= mixer.dt_rank**-0.5
    assert (mixer.D == 1).all()
    assert mixer.A_log._no_weight_decay


def test_flops_equal_torchs_count_on_the_matrix_products() -> None:
    model, x = small(), torch.randn(2, 10, 16)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    mixer = model.layers[0].mixer
    scan = 2 * mixer.d_inner * mixer.d_state  # C h is a matrix product in the torch form
    rest = 5 * 16 * 3 + 16 * 2 + 2 * (2 * 4 * 24 + 7 * 24 * 4 + 8 * 24)
    assert model.flops(2, 10) - 20 * rest == counter.get_total_flops() - 2 * 20 * scan


def test_instantiates_without_memory() -> None:
    with torch.device("meta"):
        model = small()
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in small().parameters()
    )


def test_half_precision_keeps_the_state_wide() -> None:
    torch.manual_seed(0)
    model, x = small("auto"), torch.randn(2, 20, 16)
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
        ({"d_state": 0}, "d_state is 0"),
        ({"d_conv": 1}, "d_conv is 1"),
    ],
)
def test_bad_values_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_a_perfect_memory_decays_as_equation_2a_says() -> None:
    # One channel, one state: y_t = sum_s exp(-sum delta) delta_s u_s.
    one = torch.ones(1, 3, 1)
    y, h = selective_scan_reference(
        one, one * 0.5, -torch.ones(1, 1), one, one, torch.zeros(1), one * 100, None
    )
    expected = 0.5 * (1 + math.exp(-0.5) + math.exp(-1.0))
    assert h.item() == pytest.approx(expected)
    assert y[0, -1, 0].item() == pytest.approx(100 * expected)
