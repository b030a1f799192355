"""Causal attention's kernel: the equation, whatever the length; used only where it is the same."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.attention import SHORTEST, attend, in_kernel
from tests.models.kernels import needs_numba

pytestmark = needs_numba
DOUBLE = torch.float64
ERROR = {torch.float32: 2e-5, DOUBLE: 1e-12}


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """As many as the smallest case here has heads, or torch would be left the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def drawn(
    length: int, heads: int = 2, groups: int = 1, dtype: torch.dtype = torch.float32,
    past: int = 0, width: int = 8,
) -> list[Tensor]:  # fmt: skip
    """Queries, keys and values with gradients, heads side by side in memory as a model's."""
    generator = torch.Generator().manual_seed(length)
    keys = (2, length + past, heads // groups, width)
    return [
        torch.randn(shape, generator=generator, dtype=DOUBLE).to(dtype).transpose(1, 2)
        .requires_grad_() for shape in ((2, length, heads, width), keys, keys)
    ]  # fmt: skip


def gradients(kernel: str, given: list[Tensor]) -> list[Tensor]:
    """The output, and what a weighted sum of it sends back."""
    inputs = [t.detach().requires_grad_() for t in given]  # with their strides
    y = attend(*inputs, kernel=kernel, causal=True)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), inputs)]


def check(given: list[Tensor]) -> None:
    """By the kernel as by the plain equation in fp64."""
    assert in_kernel(*given)
    error = ERROR[given[0].dtype]
    expected = gradients("eager", [t.double() for t in given])
    for found, exact in zip(gradients("sdpa", given), expected, strict=True):
        assert found.dtype == given[0].dtype
        torch.testing.assert_close(found.double(), exact, rtol=error, atol=error)


# A block more or less, and ends inside of one.
@pytest.mark.parametrize("length", [128, 129, 191, 192, 257, 600])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", list(ERROR))
def test_equals_the_equation(length: int, groups: int, dtype: torch.dtype) -> None:
    check(drawn(length, groups=groups, dtype=dtype))


@pytest.mark.parametrize("past", [1, 63, 64, 200])
@pytest.mark.parametrize("dtype", list(ERROR))
def test_queries_at_the_end_of_longer_keys(past: int, dtype: torch.dtype) -> None:
    check(drawn(150, past=past, dtype=dtype))


# One vector, a part of one, more than a row of a tile, and none of these whole.
@pytest.mark.parametrize("width", [2, 16, 20, 64, 100, 128])
@pytest.mark.parametrize("dtype", list(ERROR))
def test_any_width_of_a_head(width: int, dtype: torch.dtype) -> None:
    check(drawn(140, width=width, dtype=dtype))


def test_any_strides() -> None:
    given = drawn(140, width=16)
    check([t.detach().contiguous().requires_grad_() for t in given])
    check([t.detach()[..., ::2].requires_grad_() for t in given])
    wide = torch.randn(2, 140, 3, 2, 16)  # q, k and v of one projection
    check([t.transpose(1, 2).requires_grad_() for t in wide.unbind(2)])


def test_large_and_growing_scores() -> None:
    q, k, v = drawn(300, dtype=DOUBLE)
    growing = torch.linspace(0, 40, 300, dtype=DOUBLE)[:, None]
    check([q, (k * growing).detach().requires_grad_(), v])
    y = attend(*(t.float() for t in (1e3 * q, k * growing, v)), kernel="sdpa", causal=True)
    assert y.isfinite().all()


def test_gradients_are_those_of_differences() -> None:
    given = [t[:1, :, :, :4] for t in drawn(130, dtype=DOUBLE)]
    assert torch.autograd.gradcheck(
        lambda *t: attend(*t, kernel="sdpa", causal=True), given, fast_mode=True
    )


def test_it_is_an_operator_of_torch() -> None:
    given = [t.detach().transpose(1, 2).requires_grad_() for t in drawn(130)]
    torch.library.opcheck(torch.ops.archbench.causal_attention, tuple(given))


def test_a_second_derivative_is_refused() -> None:
    given = drawn(130)
    y = attend(*given, kernel="sdpa", causal=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y.sum(), given, create_graph=True)


def test_threads_change_nothing() -> None:
    found = gradients("sdpa", drawn(600))
    torch.set_num_threads(1)
    for one, other in zip(gradients("sdpa", drawn(600)), found, strict=True):
        assert torch.equal(one, other)


def test_the_future_is_not_seen() -> None:
    q, k, v = (t.detach() for t in drawn(600))
    before = attend(q, k, v, kernel="sdpa", causal=True)
    k[:, :, 300:], v[:, :, 300:] = 100.0, 100.0
    after = attend(q, k, v, kernel="sdpa", causal=True)
    assert torch.equal(after[:, :, :300], before[:, :, :300])
    assert not torch.isclose(after[:, :, 300:], before[:, :, 300:]).any()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_nan_stays_one(which: int) -> None:
    given = [t.detach() for t in drawn(200)]
    given[which][0, 0, 150] = torch.nan
    y = attend(*given, kernel="sdpa", causal=True)
    assert y[0, 0, 150].isnan().all()
    assert y[0, 0, :128].isfinite().all()  # blocks before it
    assert y[0, 1].isfinite().all()


def test_operators_are_counted_as_ever() -> None:
    given = drawn(512)
    with FlopCounterMode(display=False):
        assert not in_kernel(*given)
    assert in_kernel(*given)


def test_what_torch_is_left() -> None:
    assert not in_kernel(*(t[:, :, : SHORTEST - 1] for t in drawn(SHORTEST)))
    assert not in_kernel(*(t[:1, :1] for t in drawn(SHORTEST)))  # a head for two threads
    assert not in_kernel(*(t.bfloat16() for t in drawn(SHORTEST)))
    q, k, v = drawn(SHORTEST)
    assert not in_kernel(q, k[:, :, :-1], v[:, :, :-1])
    with pytest.raises(RuntimeError):  # in torch's words, and no memory out of bounds is read
        attend(q, k[..., :-1], v[..., :-1], kernel="sdpa", causal=True)
    assert not in_kernel(q, k, v[:, :, :-1])


def test_short_types_are_torchs() -> None:
    q, k, v = drawn(512)
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(q, k, v, kernel="sdpa", causal=True)
        expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)


def test_threads_that_others_set_are_not_trusted() -> None:
    """numba's number belongs to the whole thread: code of others may have changed it."""
    import numba

    from models.kernels.causal_attention import attend_fused

    q, k, v = (torch.randn(2, 4, 150, 16) for _ in range(3))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = attend_fused(q, k, v)
        numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
        assert torch.equal(attend_fused(q, k, v), expected)
        assert numba.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_scores_that_overflow_in_a_first_block_are_forgotten() -> None:
    from models.kernels.causal_attention import attend_fused

    q, k = torch.full((1, 1, 128, 16), 1e30), torch.full((1, 1, 128, 16), -1e30)
    k[:, :, 64:] = 0
    v = torch.randn(1, 1, 128, 16)
    # Of the last query: the keys of zeros, all as likely.
    torch.testing.assert_close(attend_fused(q, k, v)[0, 0, -1], v[0, 0, 64:].mean(0))
    assert attend_fused(q, k, v)[0, 0, :64].isnan().all()  # each of its scores is lost
