"""The fused gate of SwiGLU against its definition, and where it is used."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.swiglu import swiglu
from tests.models.kernels import needs_numba

pytestmark = needs_numba


def definition(gate: Tensor, up: Tensor) -> Tensor:
    """Equation 6 of arXiv:2002.05202 without its projections, Swish with beta 1."""
    return gate * torch.sigmoid(gate) * up


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Gate and up; some gates saturate."""
    generator = torch.Generator().manual_seed(sum(shape))
    gate, up = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    gate.view(-1)[::5] *= 30
    return [gate.requires_grad_(), up.requires_grad_()]


def with_gradients(form: Callable[[Tensor, Tensor], Tensor], inputs: list[Tensor]) -> list[Tensor]:
    y = form(*inputs)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), inputs)]


def ran(y: Tensor) -> str:
    assert y.grad_fn is not None
    return y.grad_fn.name()


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.sampled_from([1, 2, 7, 33, 130]), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_the_definition(shape: list[int], dtype: torch.dtype) -> None:
    inputs = drawn(*shape, dtype=dtype)
    assert "archbench" in ran(swiglu(*inputs))
    double = [x.detach().double().requires_grad_() for x in inputs]
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    found, expected = with_gradients(swiglu, inputs), with_gradients(definition, double)
    for ours, theirs in zip(found, expected, strict=True):
        atol = tolerance * max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=atol)


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(swiglu, drawn(3, 5, dtype=torch.float64))


def test_torch_finds_no_fault_with_the_operator() -> None:
    inputs = drawn(4, 6)
    swiglu(*inputs)
    torch.library.opcheck(torch.ops.archbench.swiglu.default, tuple(inputs))


def test_strides_and_threads_change_nothing() -> None:
    expected = with_gradients(swiglu, drawn(6, 40))
    strided = [x.detach().T.contiguous().T.requires_grad_() for x in drawn(6, 40)]
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found = with_gradients(swiglu, strided)
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_no_rows_and_not_a_number() -> None:
    assert swiglu(*drawn(0, 4)).shape == (0, 4)
    gate, up = drawn(2, 3)
    with torch.no_grad():
        gate[0, 0] = torch.nan
    assert torch.equal(swiglu(gate, up).isnan(), gate.isnan())


def test_where_torchs_form_runs() -> None:
    gate, up = drawn(4, 6)
    assert ran(swiglu(gate, up, "torch")) == "MulBackward0"
    with torch.no_grad():
        assert torch.equal(swiglu(gate, up), F.silu(gate) * up)
    with torch.autocast("cpu", torch.bfloat16):  # the projections give bfloat16
        assert ran(swiglu(gate.bfloat16(), up.bfloat16())) == "MulBackward0"
    with FlopCounterMode(display=False):
        assert ran(swiglu(gate, up)) == "MulBackward0"
