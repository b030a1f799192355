"""The fused elementwise functions against their definitions, and where they are used."""

from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.elementwise import FEW, _SquaredReLU, softplus, squared_relu, swiglu
from models.kernels import elementwise
from tests.models.kernels import needs_numba

pytestmark = needs_numba


@dataclass(frozen=True)
class Case:
    """A function of ours, what it is in fp64, its derivatives, and the name of torch's form."""

    ours: Callable[..., Tensor]
    inputs: int
    value: Callable[..., Tensor]
    slopes: Callable[..., tuple[Tensor, ...]]
    of_torch: str


def of_gate(gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of equation 6 of arXiv:2002.05202 without its projections, Swish with beta 1."""
    share = torch.sigmoid(gate)
    return (share + gate * share * torch.sigmoid(-gate)) * up, gate * share


CASES = {
    "swiglu": Case(swiglu, 2, lambda g, u: g * torch.sigmoid(g) * u, of_gate, "MulBackward0"),
    "softplus": Case(
        softplus, 1, lambda x: torch.logaddexp(x, torch.zeros_like(x)),
        lambda x: (torch.sigmoid(x),), "SoftplusBackward0",
    ),
    "squared_relu": Case(
        squared_relu, 1, lambda x: F.relu(x) ** 2, lambda x: (2 * F.relu(x),),
        "_SquaredReLUBackward",
    ),
}  # fmt: skip
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def drawn(case: Case, *shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Some far from zero on either side, where a sigmoid saturates."""
    generator = torch.Generator().manual_seed(sum(shape))
    made = [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(case.inputs)]
    made[0].view(-1)[::5] *= 20
    return [x.requires_grad_() for x in made]


def ran(y: Tensor) -> str:
    assert y.grad_fn is not None
    return y.grad_fn.name()


def with_gradients(case: Case, inputs: list[Tensor]) -> list[Tensor]:
    y = case.ours(*inputs)
    assert "archbench" in ran(y)
    return [y.detach(), *torch.autograd.grad(y.sum(), inputs)]


@cases
@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.sampled_from([1, 2, 7, 33, 130]), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_the_definition(case: Case, shape: list[int], dtype: torch.dtype) -> None:
    inputs = drawn(case, *shape, dtype=dtype)
    wide = [x.detach().double() for x in inputs]
    expected = [case.value(*wide), *case.slopes(*wide)]
    for found, right in zip(with_gradients(case, inputs), expected, strict=True):
        # Of a single input relative, also where the result is small: a rounding of x is one of e^x
        # as large as x. A gate's slope crosses zero.
        close, exact = (4e-6, 2e-38) if dtype == torch.float32 else (1e-13, 0.0)
        if case.inputs > 1:
            exact = (1e-6 if dtype == torch.float32 else 1e-13) * float(right.abs().max())
            close = 0.0
        torch.testing.assert_close(found.double(), right, rtol=close, atol=exact)


@pytest.mark.parametrize("name", ["softplus", "squared_relu"])
def test_the_ends_of_fp32(name: str) -> None:
    case = CASES[name]
    x = torch.tensor([-torch.inf, -1e18, -200.0, -90.0, 0.0, 90.0, 1e18, torch.inf])
    found = with_gradients(case, [x.requires_grad_()])
    expected = [case.value(x.detach()), *case.slopes(x.detach())]
    for ours, right in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-6, atol=2e-38)


@cases
def test_not_a_number_and_no_numbers(case: Case) -> None:
    inputs = drawn(case, 2, 3)
    with torch.no_grad():
        inputs[0][0, 0] = torch.nan
    for found in with_gradients(case, inputs):
        assert found.isnan().tolist() == inputs[0].isnan().tolist()
    for shape in ((0, 4), (4, 0), ()):
        empty = [torch.zeros(shape).requires_grad_() for _ in range(case.inputs)]
        assert case.ours(*empty).shape == shape


@cases
def test_gradcheck(case: Case) -> None:
    assert torch.autograd.gradcheck(case.ours, drawn(case, 3, 5, dtype=torch.float64))


def test_gradcheck_of_torchs_form() -> None:
    inputs = drawn(CASES["squared_relu"], 3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(_SquaredReLU.apply, inputs)


@cases
def test_a_second_derivative_is_refused(case: Case) -> None:
    """Also where another way to the input would carry a part of it."""
    inputs = drawn(case, 3, 4)
    y = case.ours(*inputs).sum() + inputs[0].square().sum()
    with pytest.raises(RuntimeError, match="has no second derivative"):
        torch.autograd.grad(y, inputs, create_graph=True)


@pytest.mark.parametrize("name", CASES)
def test_torch_finds_no_fault_with_the_operator(name: str) -> None:
    inputs = drawn(CASES[name], 4, 6)
    torch.library.opcheck(getattr(torch.ops.archbench, name).default, tuple(inputs))


@cases
def test_strides_and_threads_change_nothing(case: Case) -> None:
    expected = with_gradients(case, drawn(case, 6, 40))
    strided = [x.detach().T.contiguous().T.requires_grad_() for x in drawn(case, 6, 40)]
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found = with_gradients(case, strided)
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@cases
def test_where_torchs_form_runs(case: Case) -> None:
    inputs = drawn(case, 4, 6)
    assert ran(case.ours(*inputs, "torch")) == case.of_torch
    assert ran(case.ours(*(x.bfloat16() for x in inputs))) == case.of_torch
    with FlopCounterMode(display=False):
        assert ran(case.ours(*inputs)) == case.of_torch
    with torch.no_grad():
        expected = case.value(*(x.double() for x in inputs)).float()
        torch.testing.assert_close(case.ours(*inputs), expected)


@torch.no_grad()
def test_softplus_without_gradients_is_fused_where_it_is_large() -> None:
    with mock.patch.object(
        elementwise, "softplus_fused", side_effect=elementwise.softplus_fused
    ) as seen:
        softplus(torch.randn(FEW))
        softplus(torch.randn(3, FEW), "torch")
        assert not seen.called
        many = torch.randn(3, FEW)
        torch.testing.assert_close(softplus(many), F.softplus(many))
        assert seen.call_count == 1
