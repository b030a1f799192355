"""Attention by the kernel that was asked for: equal to the plain equation, or refused."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models.backbones import attention
from models.backbones.attention import attend, kernel_problem
from tests.models.test_transformer import build, close, in_pieces, noise

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FLASH_OF_CPU = "aten._scaled_dot_product_flash_attention_for_cpu"


class Operators(TorchDispatchMode):
    """The names of all operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("causal", [True, False])
def test_sdpa_flash_on_a_cpu_equals_eager_forward_and_backward(causal: bool) -> None:
    a, b = build(causal=causal, attention="sdpa_flash"), build(causal=causal, attention="eager")
    x = noise(2, 70, 48)
    with Operators() as called:
        hidden = a(x)[0]
        hidden.square().sum().backward()
    assert f"{FLASH_OF_CPU}.default" in called.names
    assert f"{FLASH_OF_CPU}_backward.default" in called.names
    reference = b(x)[0]
    torch.testing.assert_close(hidden, reference, atol=1e-5, rtol=1e-5)
    reference.square().sum().backward()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        close(p.grad, q.grad)
    assert a.kernel_used == "sdpa_flash"


@torch.no_grad()
def test_sdpa_flash_goes_on_from_a_state() -> None:
    a, b = build(attention="sdpa_flash"), build(attention="eager")
    x = noise(2, 60, 48)
    torch.testing.assert_close(in_pieces(a, x, [20, 1, 39]), b(x)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("queries", [30, 9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_sdpa_flash_equals_the_equation(queries: int, dtype: torch.dtype) -> None:
    given = (noise(2, 6, queries, 16), noise(2, 2, 30, 16), noise(2, 2, 30, 16))
    results = []
    for kernel, kind in (("eager", torch.float64), ("sdpa_flash", dtype)):
        inputs = [t.to(kind).requires_grad_() for t in given]
        y = attend(*inputs, kernel=kernel, causal=True)
        y.double().square().sum().backward()
        results.append([y, *(t.grad for t in inputs)])
    exact = dtype == torch.float64
    for ours, found in zip(*results, strict=True):
        assert ours is not None
        assert found is not None
        scale = float(ours.detach().abs().max())
        error = float((found.detach().double() - ours.detach()).abs().max())
        assert error < (1e-9 if exact else 3e-2) * scale


def test_the_package_is_given_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def flash_attn_func(  # the first six of the official arguments
        q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0,
        softmax_scale: float | None = None, causal: bool = False,
    ) -> Tensor:  # fmt: skip
        assert q.dtype == k.dtype == v.dtype == torch.bfloat16
        assert (dropout_p, softmax_scale) == (0.0, None)
        q, k, v = (t.transpose(1, 2).float() for t in (q, k, v))
        return attend(q, k, v, kernel="eager", causal=causal).transpose(1, 2).to(torch.bfloat16)

    module = ModuleType("flash_attn")
    module.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    q, k, v = noise(2, 6, 9, 16), noise(2, 2, 30, 16), noise(2, 2, 30, 16)
    with torch.autocast("cpu", torch.bfloat16):  # queries may still be in float32
        y = attention._attend_by_package(q, k, v, causal=True)
    reference = attend(q, k, v, kernel="eager", causal=True)
    torch.testing.assert_close(y.float(), reference, atol=2e-2, rtol=2e-2)


def test_what_cannot_run_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def problem(kernel: str, device: torch.device, kind: torch.dtype, width: int = 64) -> str:
        return kernel_problem(kernel, device, kind, width) or ""

    half, full = torch.bfloat16, torch.float32
    for kernel in ("eager", "sdpa", "flex", "sdpa_flash"):
        assert problem(kernel, CPU, full) == ""
    assert problem("sdpa_flash", CUDA, half) == problem("sdpa_efficient", CUDA, full) == ""
    assert problem("sdpa_efficient", CPU, full) == (
        "attention=sdpa_efficient on cpu in float32: it runs on CUDA alone; use attention=sdpa"
    )
    assert "float16 or bfloat16 alone; use attention=sdpa" in problem("sdpa_flash", CUDA, full)
    assert "300 wide, and it holds at most 256" in problem("sdpa_flash", CUDA, half, 300)
    with monkeypatch.context() as patched:
        patched.setattr(attention.importlib.util, "find_spec", lambda name: None)
        assert "pip install --no-build-isolation flash-attn" in problem("flash_attn", CUDA, half)
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: object())
    assert problem("flash_attn", CUDA, half) == ""
    assert "it runs on CUDA alone" in problem("flash_attn", CPU, half)
    assert "float16 or bfloat16 alone" in problem("flash_attn", CUDA, full)
    with pytest.raises(ValueError, match="it runs on CUDA alone; use attention=sdpa"):
        build(attention="sdpa_efficient")(noise(1, 5, 48))
