"""Linear layers by oneDNN against torch's own, and where which of them is taken."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.backbones import linear as file
from models.backbones.linear import Linear, linear, onednn_problem, product, vendor

there = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN"
)


@pytest.fixture
def onednn() -> Iterator[mock.Mock]:
    """oneDNN takes every product, as on a processor where it pays; the mock sees its calls."""
    with (
        mock.patch.object(file, "onednn_problem", return_value=None),
        mock.patch.object(file, "FEW", 0),
        mock.patch.object(file, "_onednn", side_effect=file._onednn) as seen,
    ):
        yield seen


@there
@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 5), (2, 3, 2, 5), (1, 5)])
@pytest.mark.parametrize("outputs", [1, 3, 9])
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_it_is_torchs(
    onednn: mock.Mock, shape: tuple[int, ...], outputs: int, across: bool, biased: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape).requires_grad_()
    stored = torch.randn((5, outputs) if across else (outputs, 5)).requires_grad_()
    bias = torch.randn(outputs).requires_grad_() if biased else None
    weight = stored.t() if across else stored
    wanted = [t for t in (x, stored, bias) if t is not None]
    ours, theirs = linear(x, weight, bias), F.linear(x, weight, bias)
    grad = torch.randn_like(theirs)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, wanted, grad), torch.autograd.grad(theirs, wanted, grad)
    )
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight, bias), theirs)
    assert onednn.call_count == 4


@there
def test_no_operand_has_gaps_between_its_rows(onednn: mock.Mock) -> None:
    """Their product is right, but takes a thousand times as long."""
    x = torch.randn(4, 9)[:, :5].requires_grad_()
    weight = torch.randn(3, 12)[:, 2:7].requires_grad_()
    grad = torch.randn(4, 8)[:, :3]
    given: list[torch.Tensor] = []
    called = torch.ops.mkldnn._linear_pointwise

    def seen(*operands: Any) -> torch.Tensor:
        given.extend(operands[:2])
        return called(*operands)

    with mock.patch.object(torch.ops.mkldnn, "_linear_pointwise", seen):
        found = torch.autograd.grad(linear(x, weight), (x, weight), grad)
    torch.testing.assert_close(found, torch.autograd.grad(F.linear(x, weight), (x, weight), grad))
    assert len(given) == 6
    assert all(t.is_contiguous() or t.mT.is_contiguous() for t in given)


@there
def test_a_bias_with_gaps_and_an_input_that_is_written_over(onednn: mock.Mock) -> None:
    x, weight = torch.randn(4, 5), torch.randn(3, 5)
    for bias in (torch.arange(6.0)[::2], torch.ones(1).expand(3)):
        torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))
    given = torch.randn(4, 5).requires_grad_()
    hidden = given * 1
    out = linear(hidden, weight)
    hidden.mul_(2)  # of a weight that does not learn nothing is kept but the weight
    out.sum().backward()
    assert given.grad is not None
    torch.testing.assert_close(given.grad, weight.sum(0).expand(4, 5))


@there
def test_it_can_be_differentiated_twice(onednn: mock.Mock) -> None:
    """A penalty on the gradient, which reaches the weight by two ways."""
    x, weight = torch.randn(4, 5).requires_grad_(), torch.randn(3, 5).requires_grad_()
    found = []
    for form in (linear, F.linear):
        y = form(x, weight).pow(3).sum()
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), (x, weight)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    assert onednn.called


@there
def test_functions_of_torch_func(onednn: mock.Mock) -> None:
    x, weight = torch.randn(2, 4, 5), torch.randn(3, 5)
    torch.testing.assert_close(torch.func.vmap(lambda r: linear(r, weight))(x), F.linear(x, weight))
    slope = torch.func.grad(lambda w: linear(x, w).sum())(weight)
    torch.testing.assert_close(slope, x.sum((0, 1)).expand(3, 5))
    assert not onednn.called


@there
def test_a_compiled_layer_is_torchs(onednn: mock.Mock) -> None:
    layer, x = Linear(5, 3), torch.randn(4, 5)
    compiled = torch.compile(layer, backend="aot_eager", dynamic=True)
    torch.testing.assert_close(compiled(x), F.linear(x, layer.weight, layer.bias))
    assert not onednn.called


@there
def test_a_tensor_of_another_kind_is_torchs(onednn: mock.Mock) -> None:
    class Quantised(torch.Tensor):
        pass

    weight = torch.randn(3, 5).as_subclass(Quantised)
    x = torch.randn(4, 5)
    assert isinstance(linear(x, weight), Quantised)
    with pytest.raises(RuntimeError):  # in torch's words
        linear(x, torch.randn(3, 5), torch.randn(3).double())
    assert not onednn.called


@there
def test_what_needs_no_gradient_costs_no_product(onednn: mock.Mock) -> None:
    x, weight = torch.randn(4, 3), torch.randn(2, 3)
    linear(x.requires_grad_(), weight).sum().backward()
    assert onednn.call_count == 2
    linear(x.detach(), weight.requires_grad_()).sum().backward()
    assert onednn.call_count == 4
    assert weight.grad is not None
    assert x.grad is not None
    assert torch.equal(weight.grad, x.detach().sum(0).expand(2, 3))


@there
def test_a_layer_is_torchs_and_says_what_took_it(onednn: mock.Mock) -> None:
    layer, twin = Linear(6, 4), torch.nn.Linear(6, 4)
    twin.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(layer(x), twin(x))
    assert layer.kernel_used == "onednn"
    assert layer.double().kernel_used is None


@there
def test_where_torch_takes_it(onednn: mock.Mock) -> None:
    x, weight = torch.randn(8, 3), torch.randn(2, 3)
    with mock.patch.object(file, "FEW", 8 * 3 * 2 + 1):
        linear(x, weight)
    linear(x.double(), weight.double())
    linear(x[0], weight)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(x, weight.t())
    with torch.autocast("cpu", torch.bfloat16):
        linear(x, weight)
    with torch.backends.mkldnn.flags(enabled=False):
        assert product() == "torch"
        linear(x, weight)
    with FlopCounterMode(display=False) as counter:
        linear(x, weight)
    assert counter.get_total_flops() == 2 * 8 * 3 * 2
    assert not onednn.called


@pytest.mark.parametrize(
    ("maker", "capability", "found"),
    [
        ("AuthenticAMD", "AVX512", None),
        ("GenuineIntel", "AVX512", "MKL is as fast"),
        ("AuthenticAMD", "AVX2", "no AVX-512"),
    ],
)
def test_it_is_taken_where_mkl_holds_back(maker: str, capability: str, found: str | None) -> None:
    onednn_problem.cache_clear()
    try:
        with (
            mock.patch.object(file, "vendor", return_value=maker),
            mock.patch.object(torch.backends.cpu, "get_cpu_capability", return_value=capability),
            mock.patch.object(torch.backends.mkl, "is_available", return_value=True),
        ):
            problem = onednn_problem()
        assert problem is None if found is None else found in (problem or "")
    finally:
        onednn_problem.cache_clear()


def platform_names() -> set[str]:
    """What this machine's own tools say, where there are any."""
    lscpu = shutil.which("lscpu")
    if lscpu is None:
        return {vendor()}
    said = subprocess.run([lscpu], capture_output=True, text=True, check=True, env={"LC_ALL": "C"})
    return set(re.findall(r"^Vendor ID: *(\S+)", said.stdout, re.MULTILINE)) or {""}


def test_the_maker_is_read_where_there_is_no_proc() -> None:
    assert vendor() in platform_names()
    with (
        mock.patch.object(file.Path, "read_text", side_effect=FileNotFoundError),
        mock.patch("platform.processor", return_value="AMD64 Family 26, AuthenticAMD"),
    ):
        assert vendor() == "AuthenticAMD"
