"""PixelCNN: raster causality, maps against the parallel form, torch's own convolution as judge."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.interface import RecurrentBackbone
from models.backbones.pixelcnn import MaskedConv2d, PixelCNN
from models.objectives.autoregressive import PixelLanguageModel

CPU = torch.device("cpu")


def scatter(model: torch.nn.Module, std: float = 0.2) -> None:
    """Move every parameter off its special initial value."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * std)


def backbone(
    height: int = 4, width: int = 5, kernel: int = 3, n_layers: int = 2, gated: bool = False
) -> PixelCNN:
    torch.manual_seed(0)
    model = PixelCNN(
        d_model=10,
        d_inner=6,
        n_layers=n_layers,
        kernel=kernel,
        gated=gated,
        height=height,
        width=width,
        norm_eps=1e-5,
    ).double()
    scatter(model)
    return model


def test_is_a_recurrent_backbone() -> None:
    assert isinstance(backbone(), RecurrentBackbone)


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_convolution_equals_conv2d_with_a_masked_kernel(kernel: int) -> None:
    conv = MaskedConv2d(d_in=4, d_out=6, kernel=kernel)
    side = kernel // 2
    mask = torch.zeros(kernel * kernel, dtype=torch.bool)
    mask[: kernel * kernel // 2 + 1] = True  # mask B: all up to the centre, in raster order
    taps = int(mask.sum())
    full = torch.zeros(6, 4, kernel * kernel)
    full[:, :, mask] = conv.weight.detach().unflatten(1, (taps, 4)).transpose(1, 2)
    x = torch.randn(2, 6, 5, 4)
    expected = F.conv2d(x.permute(0, 3, 1, 2), full.unflatten(2, (kernel, kernel)), padding=side)
    torch.testing.assert_close(conv(x), expected.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-5)
    assert conv.weight.numel() == int(mask.sum()) * 4 * 6


@pytest.mark.parametrize("gated", [False, True])
def test_hidden_vectors_see_no_later_input(gated: bool) -> None:
    model = backbone(gated=gated)
    x = torch.randn(1, 20, 10, dtype=torch.float64)
    weigh = torch.arange(10, dtype=torch.float64).square()
    jacobian = torch.autograd.functional.jacobian(lambda v: model(v)[0][0] @ weigh, x)
    depends = jacobian[:, 0].abs().amax(-1) > 0  # (output, input)
    assert not depends.triu(1).any()
    assert depends.diagonal().all()


def test_later_pixels_change_no_earlier_logit() -> None:
    torch.manual_seed(0)
    model = PixelLanguageModel(
        backbone=backbone().float(), levels=5, n_classes=3, height=4, width=5
    )
    scatter(model)
    pixels = torch.randint(5, (1, 4, 5))
    before = model(pixels=pixels, condition=torch.tensor([1])).logits.flatten(1, 2)
    for t in range(20):
        changed = pixels.clone()
        changed.view(-1)[t] = (changed.view(-1)[t] + 1) % 5
        after = model(pixels=changed, condition=torch.tensor([1])).logits.flatten(1, 2)
        same = (after == before).all(-1)[0]
        # Logits at t predict pixel t itself, so they are the last that may not change.
        assert same[: t + 1].all()
        if t < 19:
            assert not same[t + 1]


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 5),
    width=st.integers(1, 6),
    kernel=st.sampled_from([3, 5]),
    gated=st.booleans(),
    cut=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_pieces_and_steps_equal_the_whole(
    height: int, width: int, kernel: int, gated: bool, cut: float, seed: int
) -> None:
    model = backbone(height, width, kernel, gated=gated)
    pixels = height * width
    x = torch.randn(
        2, pixels, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    first = round(cut * pixels)
    with torch.no_grad():
        whole, _ = model(x)
        state = model.init_state(2, device=CPU, dtype=torch.float64)
        parts = []
        if first:
            hidden, state = model.prefill(x[:, :first], state)
            parts.append(hidden)
            torch.testing.assert_close(model(x[:, :first])[0], whole[:, :first])
        second = (pixels - first) // 2
        for t in range(first, first + second):
            hidden, state = model.step(x[:, t], state)
            parts.append(hidden[:, None])
        if first + second < pixels:
            hidden, state = model.prefill(x[:, first + second :], state)
            parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(("kernel", "n_layers"), [(3, 1), (3, 2), (3, 3), (5, 1), (5, 2)])
def test_an_output_sees_exactly_the_receptive_field(kernel: int, n_layers: int) -> None:
    height, width, row, column = 6, 13, 5, 6
    model = backbone(height, width, kernel, n_layers)
    x = torch.randn(1, height * width, 10, dtype=torch.float64, requires_grad=True)
    weigh = torch.arange(10, dtype=torch.float64).square()
    (grad,) = torch.autograd.grad((model(x)[0][0, row * width + column] * weigh).sum(), x)
    seen = (grad[0].abs().amax(-1) > 0).view(height, width)
    expected = torch.tensor(
        [[model.sees(row - y, z - column) for z in range(width)] for y in range(height)]
    )
    assert torch.equal(seen, expected)


def test_gradients_of_the_recurrent_form_equal_those_of_the_parallel_form() -> None:
    model = backbone()
    x = torch.randn(2, 20, 10, dtype=torch.float64)
    target = torch.randn(2, 20, 10, dtype=torch.float64)
    parallel = torch.autograd.grad((model(x)[0] * target).sum(), list(model.parameters()))
    state = model.init_state(2, device=CPU, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for piece in (slice(0, 7), slice(7, 8), slice(8, 20)):
        hidden, state = model.prefill(x[:, piece], state)
        total = total + (hidden * target[:, piece]).sum()
    recurrent = torch.autograd.grad(total, list(model.parameters()))
    scale = max(g.norm() for g in parallel)
    for a, b in zip(parallel, recurrent, strict=True):
        assert (a - b).norm() <= 1e-6 * scale


@pytest.mark.parametrize("gated", [False, True])
def test_cost_is_what_is_stated(gated: bool) -> None:
    model = backbone(gated=gated).float()
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(3, 20, 10))
    assert model.flops(3, 20) == counter.get_total_flops()
    state = model.init_state(3, device=CPU, dtype=torch.float32)
    held = sum(one.numel() * one.element_size() for one in state.maps)
    assert model.state_bytes(3, 20, torch.float32) == held


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kernel is 4; a masked convolution needs an odd one"):
        backbone(kernel=4)
    with pytest.raises(ValueError, match="21 pixels were given; images of height 4 and width 5"):
        backbone()(torch.randn(1, 21, 10, dtype=torch.float64))
