"""Causal attention in blocks: the equation, whatever the length; used only where it is the same."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.attention import attend
from models.backbones.causal_attention import attend_in_blocks, in_blocks

DOUBLE = torch.float64


def drawn(
    length: int, heads: int = 2, groups: int = 1, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Queries, keys and values with gradients, heads side by side in memory as a model's."""
    generator = torch.Generator().manual_seed(length)
    shapes = [(2, length, h, 8) for h in (heads, heads // groups, heads // groups)]
    return [
        torch.randn(shape, generator=generator, dtype=DOUBLE).to(dtype).transpose(1, 2)
        .requires_grad_() for shape in shapes
    ]  # fmt: skip


def gradients(kernel: str, given: list[Tensor]) -> list[Tensor]:
    inputs = [t.detach().clone().requires_grad_() for t in given]
    y = attend(*inputs, kernel=kernel, causal=True)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), inputs)]


# One block more or less, the ends of what the forward and the backward cut, none of them even.
@pytest.mark.parametrize("length", [256, 257, 383, 512, 767, 768, 1030])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_equals_the_equation(length: int, groups: int, dtype: torch.dtype) -> None:
    given = drawn(length, groups=groups, dtype=dtype)
    assert in_blocks(given[0], given[1])
    expected = gradients("eager", [t.double() for t in given])
    error = 1e-12 if dtype == DOUBLE else 2e-5
    for found, exact in zip(gradients("sdpa", given), expected, strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact, rtol=error, atol=error)


def test_gradients_of_blocks_are_those_of_differences() -> None:
    given = [t[:1, :1, :, :4] for t in drawn(260, dtype=DOUBLE)]
    assert torch.autograd.gradcheck(attend_in_blocks, given, fast_mode=True)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = gradients("sdpa", drawn(600))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(found, gradients("sdpa", drawn(600)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_the_future_is_not_seen() -> None:
    q, k, v = (t.detach() for t in drawn(600))
    before = attend(q, k, v, kernel="sdpa", causal=True)
    k[:, :, 300:], v[:, :, 300:] = 100.0, 100.0
    after = attend(q, k, v, kernel="sdpa", causal=True)
    assert torch.equal(after[:, :, :300], before[:, :, :300])
    assert not torch.isclose(after[:, :, 300:], before[:, :, 300:]).any()


def test_operators_are_counted_as_ever() -> None:
    q, k, _ = drawn(512)
    with FlopCounterMode(display=False):
        assert not in_blocks(q, k)
    assert in_blocks(q, k)


def test_short_types_are_torchs() -> None:
    q, k, v = drawn(512)
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(q, k, v, kernel="sdpa", causal=True)
        expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
