"""The CUDA kernels of the libraries and of attention: logits, states and gradients of our form.

Each test is skipped, with the reason, where its library is not installed.
"""

import copy
import itertools
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from bench.agreement import agreement
from bench.training import Budget, Recipe, train
from models.backbones.attention import attend, kernel_problem
from models.backends.fla import FlashLinearAttention
from models.backends.mamba_ssm import MambaSsm
from tests.cuda import DEVICE, ON_CUDA
from tests.models.test_backends import batch
from tests.zoo import build

pytestmark = ON_CUDA
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
# Backend, modules it needs, model, values of its backbone, and the largest error that a type may
# make, of the largest value. Triton rounds the factors of float32 products to TF32 (11 bits), which
# torch's own setting does not change; selective_scan of mamba-ssm is CUDA and has no such products.
LOOSE = {FLOAT32: 1e-2, BFLOAT16: 5e-2}
MAMBA = ("mamba_ssm", "causal_conv1d")
CASES: list[tuple[Any, tuple[str, ...], str, dict[str, Any], dict[torch.dtype, float]]] = [
    (MambaSsm, (*MAMBA, "selective_scan_cuda"), "mamba", {}, {FLOAT32: 1e-3, BFLOAT16: 5e-2}),
    (MambaSsm, MAMBA, "mamba2", {}, LOOSE),
    (MambaSsm, MAMBA, "mamba2", {"ngroups": 2}, LOOSE),
    (MambaSsm, MAMBA, "mamba3", {"headdim": 32}, {BFLOAT16: 5e-2}),
    (FlashLinearAttention, ("fla",), "rwkv", {}, LOOSE),
    (FlashLinearAttention, ("fla",), "hybrid", {"pattern": ["gated_delta", "attention"]}, LOOSE),
]
POINTS = [
    pytest.param(*case[:4], dtype, error, id=f"{case[2]}-{'-'.join(case[3])}-{dtype}")
    for case in CASES
    for dtype, error in case[4].items()
]


def pair(
    kind: Any, needs: tuple[str, ...], model: str, options: Any
) -> tuple[nn.Module, nn.Module]:
    for name in needs:
        pytest.importorskip(name, exc_type=ImportError)
    ours = build(model, "language", task=options).eval().to(DEVICE)
    backend = kind(types=["float32", "bfloat16"]) if kind is MambaSsm else kind()
    return ours, backend.adopt(copy.deepcopy(ours))


def tokens(count: int = 150) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(256, (2, count), generator=generator).to(DEVICE)


@pytest.mark.parametrize(("kind", "needs", "model", "options", "dtype", "error"), POINTS)
def test_logits_and_states(
    kind: Any, needs: Any, model: str, options: Any, dtype: torch.dtype, error: float
) -> None:
    ours, theirs = (net.to(dtype) for net in pair(kind, needs, model, options))
    given = {"tokens": batch("language")["tokens"].to(DEVICE)}
    largest = float(ours(**given).logits.detach().abs().max())
    assert agreement(ours, theirs, given, dtype).difference <= error * max(largest, 1.0)
    with torch.no_grad():
        whole, _ = ours.prefill(tokens())
        first, state = theirs.prefill(tokens()[:, :70])
        second, _ = theirs.prefill(tokens()[:, 70:], state)
    difference = (torch.cat([first, second], 1) - whole).abs().max()
    assert float(difference) <= error * float(whole.abs().max())


@pytest.mark.parametrize(("kind", "needs", "model", "options", "dtype", "error"), POINTS)
def test_gradients(
    kind: Any, needs: Any, model: str, options: Any, dtype: torch.dtype, error: float
) -> None:
    """Weights in float32 and, for a short type, autocast: as they are trained."""
    found: list[dict[str, Tensor]] = []
    for net in pair(kind, needs, model, options):
        with torch.autocast(DEVICE.type, dtype, enabled=dtype != FLOAT32):
            logits = net(tokens=tokens()).logits
        logits.float().square().mean().backward()
        found.append({n: p.grad for n, p in net.named_parameters() if p.grad is not None})
    expected, gradients = found
    assert expected.keys() == gradients.keys()
    whole = torch.cat([value.flatten() for value in expected.values()])
    difference = torch.cat([(gradients[name] - g).flatten() for name, g in expected.items()])
    assert difference.norm() <= 2 * error * whole.norm()
    for name, value in expected.items():  # small ones are mostly rounding
        assert (gradients[name] - value).norm() <= 6 * error * value.norm() + 1e-12, name


@pytest.mark.parametrize("kernel", ["sdpa_flash", "sdpa_efficient", "flex", "flash_attn"])
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("queries", [130, 37])
def test_attention(kernel: str, dtype: torch.dtype, queries: int) -> None:
    """By a kernel, or refused in the sentence that a record gives as its reason."""
    generator = torch.Generator().manual_seed(3)
    given = [torch.randn(2, heads, length, 64, generator=generator).to(DEVICE)
             for heads, length in ((6, queries), (2, 130), (2, 130))]  # fmt: skip
    if problem := kernel_problem(kernel, DEVICE, dtype, 64):
        with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
            attend(*(t.to(dtype) for t in given), kernel=kernel, causal=True)
        return
    results = []
    for name, kind in (("eager", FLOAT32), (kernel, dtype)):
        inputs = [t.to(dtype).to(kind).requires_grad_() for t in given]
        y = attend(*inputs, kernel=name, causal=True)
        y.float().square().sum().backward()
        results.append([y.detach(), *(t.grad for t in inputs)])
    for exact, found in zip(*results, strict=True):
        assert exact is not None
        assert found is not None
        error = float((found.float() - exact).norm()) / float(exact.norm())
        assert error < (1e-2 if dtype == FLOAT32 else 3e-2)


def test_forward_as_a_cuda_graph() -> None:
    """compile=reduce-overhead: graphs are recorded, none is skipped; the loss falls as without."""
    recipe = Recipe(lr=0.01, adam_ratio=0.5, weight_decay=0.0, cooldown=0.0, clip=1.0)
    batch = {"tokens": tokens(64), "labels": tokens(64)}
    torch._dynamo.reset()
    counters.clear()
    losses = []
    for mode in (None, "reduce-overhead"):
        net = build("transformer", "language").to(DEVICE)
        if mode is not None:
            net.compile(mode=mode)
        done = train(net, itertools.repeat(batch), budget=Budget(items=20), batch_size=2,
                     recipe=recipe, device=DEVICE, every=1)  # fmt: skip
        losses.append(done.curve.loss)
    assert counters["inductor"]["cudagraph_recorded_non_static_inputs"] > 0
    assert counters["inductor"]["cudagraph_skips"] == 0
    plain, graph = losses
    assert len(graph) == 10
    assert graph[-1] < 0.9 * graph[0]
    assert graph == pytest.approx(plain, abs=2e-2, rel=2e-2)
