"""ByteNet: causality, its windows against the parallel form, torch's own convolution as judge."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.bytenet import ByteNet, CausalConv1d
from models.backbones.interface import RecurrentBackbone

CPU = torch.device("cpu")


def backbone(kernel: int = 3, n_layers: int = 4) -> ByteNet:
    """A network in float64 with no weight at its special initial value."""
    torch.manual_seed(0)
    model = ByteNet(
        d_model=12,
        d_inner=8,
        n_layers=n_layers,
        kernel=kernel,
        dilations=[1, 2, 4],
        norm_eps=1e-5,
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def test_is_a_recurrent_backbone() -> None:
    assert isinstance(backbone(), RecurrentBackbone)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 3, 8])
def test_convolution_equals_conv1d_on_a_padded_input(kernel: int, dilation: int) -> None:
    conv = CausalConv1d(d_in=4, d_out=6, kernel=kernel, dilation=dilation)
    x = torch.randn(2, 11, 4)
    weight = conv.weight.unflatten(1, (kernel, 4)).transpose(1, 2)  # (d_out, d_in, k)
    padded = F.pad(x.transpose(1, 2), (conv.reach, 0))
    expected = F.conv1d(padded, weight, dilation=dilation).transpose(1, 2)
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 19), min_size=1, max_size=4),
    steps=st.integers(0, 6),
    kernel=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_pieces_and_steps_equal_the_whole(
    pieces: list[int], steps: int, kernel: int, seed: int
) -> None:
    model = backbone(kernel)
    length = sum(pieces) + steps
    x = torch.randn(
        2, length, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    with torch.no_grad():
        whole, losses = model(x)
        state = model.init_state(2, device=CPU, dtype=torch.float64)
        parts = []
        for piece in x[:, : sum(pieces)].split(pieces, 1):
            hidden, state = model.prefill(piece, state)
            parts.append(hidden)
        for t in range(sum(pieces), length):
            hidden, state = model.step(x[:, t], state)
            parts.append(hidden[:, None])
        # And back to the parallel form after single steps.
        hidden, state = model.prefill(x[:, -1:], state)
    assert not losses
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-10, rtol=1e-10)
    assert state.position == length + 1


def test_prefill_after_steps_equals_the_whole() -> None:
    model = backbone()
    x = torch.randn(1, 60, 12, dtype=torch.float64)
    with torch.no_grad():
        state = model.init_state(1, device=CPU, dtype=torch.float64)
        for t in range(23):
            _, state = model.step(x[:, t], state)
        tail, state = model.prefill(x[:, 23:], state)
        torch.testing.assert_close(tail, model(x)[0][:, 23:], atol=1e-10, rtol=1e-10)


def test_gradients_of_the_recurrent_form_equal_those_of_the_parallel_form() -> None:
    model = backbone()
    x = torch.randn(2, 15, 12, dtype=torch.float64)
    target = torch.randn(2, 15, 12, dtype=torch.float64)
    parallel = torch.autograd.grad((model(x)[0] * target).sum(), list(model.parameters()))
    state = model.init_state(2, device=CPU, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for t in range(15):
        hidden, state = model.step(x[:, t], state)
        total = total + (hidden * target[:, t]).sum()
    recurrent = torch.autograd.grad(total, list(model.parameters()))
    scale = max(g.norm() for g in parallel)
    for a, b in zip(parallel, recurrent, strict=True):
        assert (a - b).norm() <= 1e-6 * scale


@pytest.mark.parametrize(("kernel", "n_layers"), [(1, 2), (2, 3), (3, 2), (3, 4)])
def test_an_output_sees_exactly_the_receptive_field(kernel: int, n_layers: int) -> None:
    model = backbone(kernel, n_layers)
    sum_of_dilations = sum([1, 2, 4, 1][:n_layers])
    assert model.receptive_field == 1 + (kernel - 1) * sum_of_dilations
    x = torch.randn(1, 40, 12, dtype=torch.float64, requires_grad=True)
    at = 34
    # A sum of a normed vector has next to no gradient, so weigh its entries.
    weigh = torch.arange(12, dtype=torch.float64).square()
    (grad,) = torch.autograd.grad((model(x)[0][0, at] * weigh).sum(), x)
    seen = grad[0].abs().amax(-1).nonzero().flatten()
    assert seen.max() == at
    assert at - seen.min() + 1 == model.receptive_field
    # Dilations 1, 2, 4 with at least that many taps leave no holes.
    if kernel > 1:
        assert len(seen) == model.receptive_field


def test_an_untrained_block_is_the_identity() -> None:
    torch.manual_seed(0)
    model = ByteNet(d_model=12, d_inner=8, n_layers=3, kernel=3, dilations=[1, 2], norm_eps=1e-5)
    x = torch.randn(2, 9, 12)
    torch.testing.assert_close(model(x)[0], F.layer_norm(x, (12,)))


def test_cost_is_what_is_stated() -> None:
    model = backbone().float()
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(3, 17, 12))
    assert model.flops(3, 17) == counter.get_total_flops()
    state = model.init_state(3, device=CPU, dtype=torch.float32)
    held = sum(ring.numel() * ring.element_size() for ring in state.rings)
    assert model.state_bytes(3, 1000, torch.float32) == held


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kernel is 0; it has to be at least 1"):
        backbone(kernel=0)
    with pytest.raises(ValueError, match=r"dilations is \[\]"):
        ByteNet(d_model=4, d_inner=4, n_layers=1, kernel=3, dilations=[], norm_eps=1e-5)
