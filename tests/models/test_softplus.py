"""The fused softplus against its definition, and where it is used."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.backbones.softplus import softplus
from tests.models.kernels import needs_numba

pytestmark = needs_numba


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Some far from zero on either side, where the logarithm is the input, or is tiny."""
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(shape, generator=generator, dtype=dtype)
    x.view(-1)[::5] *= 20
    return x.requires_grad_()


def with_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    y = softplus(x)
    assert y.grad_fn is not None
    assert "archbench" in y.grad_fn.name()
    return y.detach(), torch.autograd.grad(y.sum(), x)[0]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.sampled_from([1, 2, 7, 33, 130]), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_the_definition(shape: list[int], dtype: torch.dtype) -> None:
    x = drawn(*shape, dtype=dtype)
    y, slope = with_gradient(x)
    wide = x.detach().double()
    # Relative, also where the result is small: a rounding of x is one of e^x as large as x.
    slack = 4e-6 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(y.double(), torch.logaddexp(wide, wide * 0), rtol=slack, atol=0)
    torch.testing.assert_close(slope.double(), torch.sigmoid(wide), rtol=slack, atol=0)


def test_the_ends_of_fp32() -> None:
    x = torch.tensor([-1e30, -200.0, -90.0, 0.0, 90.0, 1e30, torch.inf]).requires_grad_()
    y, slope = with_gradient(x)
    torch.testing.assert_close(y, F.softplus(x.detach()), rtol=1e-6, atol=2e-38)
    torch.testing.assert_close(slope, torch.sigmoid(x.detach()), rtol=1e-6, atol=2e-38)
    y, slope = with_gradient(torch.full((1, 3), torch.nan).requires_grad_())
    assert y.isnan().all()
    assert slope.isnan().all()


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(softplus, drawn(3, 5, dtype=torch.float64))


def test_torch_finds_no_fault_with_the_operator() -> None:
    softplus(drawn(4, 6))
    torch.library.opcheck(torch.ops.archbench.softplus.default, (drawn(4, 6),))


def test_strides_and_threads_change_nothing() -> None:
    expected = with_gradient(drawn(6, 40))
    strided = drawn(6, 40).detach().T.contiguous().T.requires_grad_()
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found = with_gradient(strided)
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_where_torchs_form_runs() -> None:
    x = drawn(4, 6)
    for y in (softplus(x, "torch"), softplus(x.bfloat16())):
        assert y.grad_fn is not None
        assert y.grad_fn.name() == "SoftplusBackward0"
    with torch.no_grad():
        assert torch.equal(softplus(x), F.softplus(x))
    assert softplus(drawn(0, 4)).shape == (0, 4)
