"""The fused softplus and squared ReLU against their definitions, and where they are used."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.backbones.unary import FEW, _SquaredReLU, softplus, squared_relu
from tests.models.kernels import needs_numba

pytestmark = needs_numba


@dataclass(frozen=True)
class Case:
    """A function of ours, what it is in fp64, and its derivative."""

    ours: Callable[[Tensor], Tensor]
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


CASES = {
    "softplus": Case(softplus, lambda x: torch.logaddexp(x, torch.zeros_like(x)), torch.sigmoid),
    "squared_relu": Case(
        squared_relu, lambda x: F.relu(x) ** 2, lambda x: 2 * F.relu(x)
    ),
}  # fmt: skip
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Some far from zero on either side, where the logarithm is the input, or is tiny."""
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(shape, generator=generator, dtype=dtype)
    x.view(-1)[::5] *= 20
    return x.requires_grad_()


def with_gradient(case: Case, x: Tensor) -> tuple[Tensor, Tensor]:
    y = case.ours(x)
    assert y.grad_fn is not None
    assert "archbench" in y.grad_fn.name()
    return y.detach(), torch.autograd.grad(y.sum(), x)[0]


@cases
@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.sampled_from([1, 2, 7, 33, 130]), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_the_definition(case: Case, shape: list[int], dtype: torch.dtype) -> None:
    x = drawn(*shape, dtype=dtype)
    y, slope = with_gradient(case, x)
    wide = x.detach().double()
    # Relative, also where the result is small: a rounding of x is one of e^x as large as x.
    near = {"rtol": 4e-6, "atol": 2e-38} if dtype == torch.float32 else {"rtol": 1e-13, "atol": 0}
    torch.testing.assert_close(y.double(), case.value(wide), **near)
    torch.testing.assert_close(slope.double(), case.slope(wide), **near)


@cases
def test_the_ends_of_fp32(case: Case) -> None:
    x = torch.tensor([-torch.inf, -1e18, -200.0, -90.0, 0.0, 90.0, 1e18, torch.inf])
    y, slope = with_gradient(case, x.requires_grad_())
    near = {"rtol": 1e-6, "atol": 2e-38}
    torch.testing.assert_close(y, case.value(x.detach()).float(), **near)
    torch.testing.assert_close(slope, case.slope(x.detach()).float(), **near)
    y, slope = with_gradient(case, torch.full((1, 3), torch.nan).requires_grad_())
    assert y.isnan().all()
    assert slope.isnan().all()


@cases
def test_gradcheck(case: Case) -> None:
    assert torch.autograd.gradcheck(case.ours, drawn(3, 5, dtype=torch.float64))


def test_gradcheck_of_torchs_form() -> None:
    assert torch.autograd.gradcheck(_SquaredReLU.apply, drawn(3, 5, dtype=torch.float64))


@pytest.mark.parametrize("name", CASES)
def test_torch_finds_no_fault_with_the_operator(name: str) -> None:
    CASES[name].ours(drawn(4, 6))
    torch.library.opcheck(getattr(torch.ops.archbench, name).default, (drawn(4, 6),))


@cases
def test_strides_and_threads_change_nothing(case: Case) -> None:
    expected = with_gradient(case, drawn(6, 40))
    strided = drawn(6, 40).detach().T.contiguous().T.requires_grad_()
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found = with_gradient(case, strided)
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_where_torchs_form_runs() -> None:
    x = drawn(4, 6)
    for y, name in (
        (softplus(x, "torch"), "SoftplusBackward0"),
        (softplus(x.bfloat16()), "SoftplusBackward0"),
        (squared_relu(x.bfloat16()), "_SquaredReLUBackward"),
    ):
        assert y.grad_fn is not None
        assert y.grad_fn.name() == name
    with torch.no_grad():
        assert torch.equal(softplus(x), F.softplus(x))
        assert torch.equal(squared_relu(x), F.relu(x).square())
        many = torch.randn(3, FEW)
        torch.testing.assert_close(softplus(many), F.softplus(many))
        assert not torch.equal(softplus(many), F.softplus(many))  # the kernel's last digits
    assert softplus(drawn(0, 4)).shape == (0, 4)


@cases
def test_a_second_derivative_is_refused_and_odd_shapes_are_torchs(case: Case) -> None:
    x = drawn(3, 4)
    (slope,) = torch.autograd.grad(case.ours(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(slope.sum(), x)
    assert case.ours(drawn(4, 0)).shape == (4, 0)
    assert case.ours(torch.tensor(1.0).requires_grad_()).shape == ()
