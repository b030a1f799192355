"""The kernels of RMSNorm and of rotary positions: their equations, torch's rules, and their use."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.attention import Rope, _Rotate, rotate
from models.backbones.norm import RMSNorm, _FusedRMSNorm
from tests.models.kernels import needs_numba

pytestmark = needs_numba
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def near(dtype: torch.dtype, scale: float = 1.0) -> dict[str, float]:
    return {"rtol": 0, "atol": scale * (2e-6 if dtype == torch.float32 else 1e-14)}


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def ran(y: Tensor) -> str:
    """The operator that made it, before views."""
    node = y.grad_fn
    while node is not None and "archbench" not in node.name():
        node = node.next_functions[0][0] if node.next_functions else None
    return node.name() if node is not None else "torch's"


def norm_and_slopes(x: Tensor, weight: Tensor, eps: float, dy: Tensor) -> tuple[Tensor, ...]:
    """Equation 4 of arXiv:1910.07467 and its derivatives by matrices, of rows (N, D) in fp64."""
    x, weight, dy = (t.detach().double() for t in (x, weight, dy))
    width = x.shape[1]
    rms = (x.square().mean(1, keepdim=True) + eps).sqrt()
    # d(x_i / rms) / dx_j = (delta_ij - x_i x_j / (D rms^2)) / rms
    outer = x.unsqueeze(2) * x.unsqueeze(1) / (width * rms.unsqueeze(2) ** 2)
    jacobian = (torch.eye(width, dtype=x.dtype) - outer) / rms.unsqueeze(2)
    dx = torch.einsum("ni,nij->nj", dy * weight, jacobian)
    return x / rms * weight, dx, (dy * x / rms).sum(0)


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (70, 33), (256, 64)])
@pytest.mark.parametrize("threads", [1, 2])
def test_norm_equals_its_equation(shape: tuple[int, int], dtype: torch.dtype, threads: int) -> None:
    layer = RMSNorm(shape[1], 1e-3).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(drawn(shape[1], dtype=dtype))
    x, dy = drawn(*shape, dtype=dtype), drawn(*shape[::-1], dtype=dtype).detach().T
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = layer(x)
        slopes = torch.autograd.grad(y, (x, layer.weight), dy)
    finally:
        torch.set_num_threads(before)
    assert "rms_norm" in ran(y)
    expected = norm_and_slopes(x, layer.weight, 1e-3, dy)
    for found, right in zip((y, *slopes), expected, strict=True):
        scale = max(1.0, float(right.abs().max()))
        torch.testing.assert_close(found.double(), right, **near(dtype, 10 * scale))


def turned(x: Tensor, first: int, theta: float) -> Tensor:
    """Equation 34 of arXiv:2104.09864 by complex numbers, in fp64; pairs are half a head apart."""
    real, imaginary = x.detach().double().chunk(2, -1)
    width = x.shape[-1]
    frequency = theta ** (-torch.arange(0, width, 2).double() / width)
    positions = torch.arange(first, first + x.shape[1]).double()
    angle = torch.outer(positions, frequency).unsqueeze(1)
    product = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((product.real, product.imag), -1)


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 7, 3, 6), (3, 130, 4, 64)])
def test_rotation_equals_its_equation(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    cos, sin = Rope(shape[-1], 100.0)(5, 5 + shape[1])
    x, dy = drawn(*shape, dtype=dtype), drawn(*shape[::-1], dtype=dtype).detach()
    dy = dy.permute(3, 2, 1, 0)
    y = rotate(x, cos.to(dtype), sin.to(dtype))
    assert "rotate" in ran(y)
    # The table is fp32's whatever the model's type.
    torch.testing.assert_close(y.double(), turned(x, 5, 100.0), rtol=0, atol=5e-5)
    # Turning keeps lengths, and its adjoint takes what was turned back.
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1), rtol=1e-5, atol=1e-5)
    (dx,) = torch.autograd.grad(y, x, dy)
    scalar = (dx.double() * x.double()).sum(), (dy.double() * y.double()).sum()
    torch.testing.assert_close(*scalar, rtol=1e-5, atol=1e-4)


def a_norm(x: Tensor) -> Tensor:
    layer = RMSNorm(x.shape[-1], 1e-3).to(x.dtype)
    return layer(x)


def a_rotation(x: Tensor) -> Tensor:
    cos, sin = Rope(x.shape[-1], 100.0)(0, x.shape[1])
    return rotate(x, cos.to(x.dtype), sin.to(x.dtype))


both = pytest.mark.parametrize("function", [a_norm, a_rotation])


@both
def test_gradcheck(function: Callable[[Tensor], Tensor]) -> None:
    assert torch.autograd.gradcheck(function, (drawn(2, 3, 2, 4, dtype=torch.float64),))


def test_gradcheck_of_torchs_forms() -> None:
    x, gain = drawn(6, 5, dtype=torch.float64), drawn(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, gain: _FusedRMSNorm.apply(x, gain, 1e-3), (x, gain))
    heads = drawn(2, 3, 2, 4, dtype=torch.float64)
    table = [t.double() for t in Rope(4, 100.0)(0, 3)]
    assert torch.autograd.gradcheck(lambda x: _Rotate.apply(x, *table, 1), (heads,))


def test_second_derivatives() -> None:
    x = drawn(2, 3, 2, 4, dtype=torch.float64)
    for function in (a_rotation, a_norm):
        assert torch.autograd.gradgradcheck(function, (x,))


def test_transforms_of_torch_see_torchs_form() -> None:
    """Tangents that the kernels know nothing of are not lost."""
    x, tangent = drawn(2, 3, 2, 4).detach(), torch.ones(2, 3, 2, 4)
    step = 1e-3
    for function in (RMSNorm(4, 1e-3), a_rotation):
        _, found = torch.func.jvp(function, (x,), (tangent,))
        near = (function(x + step * tangent) - function(x - step * tangent)) / (2 * step)
        torch.testing.assert_close(found, near, rtol=1e-2, atol=1e-2)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, tangent)
            _, found = torch.autograd.forward_ad.unpack_dual(function(dual))
        torch.testing.assert_close(found, near, rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(torch.func.vmap(function)(x[:, None])[:, 0], function(x))


@pytest.mark.parametrize("grad", [True, False])
def test_what_does_not_fit_is_refused_by_torch(grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        for width in (8, 4096):
            with pytest.raises(RuntimeError, match="normalized_shape"):
                RMSNorm(16, 1e-5)(torch.ones(2, width))
        for shape in ((1, 50, 1, 4), (1, 2, 1, 6)):
            with pytest.raises(RuntimeError, match="size of tensor"):
                rotate(torch.ones(shape, requires_grad=grad), *Rope(4, 1e4)(0, 2))


def test_torch_finds_no_fault_with_the_operators() -> None:
    ops, angle = torch.ops.archbench, torch.randn(3, 4)
    torch.library.opcheck(ops.rms_norm.default, (drawn(6, 5), drawn(5), 1e-3))
    torch.library.opcheck(ops.rotate.default, (drawn(2, 3, 2, 4), angle, angle, 1))


@both
def test_strides_change_nothing(function: Callable[[Tensor], Tensor]) -> None:
    dense = drawn(2, 5, 3, 8)
    strided = dense.detach().transpose(1, 3).contiguous().transpose(1, 3).requires_grad_()
    found, expected = function(strided), function(dense)
    assert torch.equal(found, expected)
    pairs = (torch.autograd.grad(y.square().sum(), x)[0] for y, x in
             ((found, strided), (expected, dense)))  # fmt: skip
    assert torch.equal(*pairs)


@both
def test_not_a_number_and_no_numbers(function: Callable[[Tensor], Tensor]) -> None:
    x = drawn(1, 3, 2, 4).detach()
    x[0, 1, 0, 2] = torch.nan
    seen = function(x.requires_grad_()).isnan()
    assert seen[0, 1, 0].any()
    assert seen.sum() == seen[0, 1, 0].sum()
    for shape in ((0, 3, 2, 4), (2, 0, 2, 4)):
        assert function(torch.zeros(shape).requires_grad_()).shape == shape


@both
def test_where_torchs_form_runs(function: Callable[[Tensor], Tensor]) -> None:
    x = drawn(2, 3, 2, 4)
    expected = function(x)
    with FlopCounterMode(display=False):
        plain = function(x)
    assert ran(plain) == "torch's"
    torch.testing.assert_close(plain, expected)
    assert ran(function(drawn(2, 3, 2, 4).to(torch.bfloat16))) == "torch's"
    with torch.no_grad():
        torch.testing.assert_close(function(x), expected)


def test_a_norm_without_gradients_of_the_input_still_learns() -> None:
    layer, x = RMSNorm(4, 1e-3), drawn(6, 4).detach()
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, F.rms_norm(x, (4,), eps=1e-3).sum(0))
