"""The backends of CUDA kernels by stand-ins of the libraries: what is passed, what comes of it."""

import copy
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from bench import doctor
from bench.agreement import agreement
from models.backends.cuda import cuda_problem
from models.backends.fla import FlashLinearAttention
from models.backends.mamba_ssm import MambaSsm, symbols_of
from tests.models.libraries import libraries
from tests.models.test_backends import batch
from tests.zoo import CONFIGS, build

__all__ = ["libraries"]  # a fixture

FLOAT32 = ["float32", "bfloat16", "float16"]
BACKENDS = {"mamba_ssm": MambaSsm(types=FLOAT32), "fla": FlashLinearAttention()}
# Backend, model, values of its backbone, functions that are called, and the kernel of the record.
CASES = [
    ("mamba_ssm", "mamba", {},
     {"causal_conv1d_fn", "causal_conv1d_update", "selective_scan_fn", "selective_state_update"},
     "selective_scan_fn"),
    ("mamba_ssm", "mamba2", {},
     {"causal_conv1d_fn", "causal_conv1d_update", "mamba_chunk_scan_combined",
      "selective_state_update"},
     "mamba_chunk_scan_combined"),
    ("mamba_ssm", "mamba2", {"ngroups": 2, "headdim": 24, "d_state": 12},
     {"causal_conv1d_fn", "causal_conv1d_update", "mamba_chunk_scan_combined",
      "selective_state_update"},
     "mamba_chunk_scan_combined"),
    ("mamba_ssm", "mamba3", {"headdim": 32}, {"mamba3_siso_combined"},
     "mamba3_siso_combined+torch"),
    ("mamba_ssm", "mamba3", {"headdim": 16, "ngroups": 2, "rope_fraction": 1.0},
     {"mamba3_siso_combined"}, "mamba3_siso_combined+torch"),
    ("fla", "rwkv", {}, {"chunk_rwkv7", "fused_mul_recurrent_rwkv7"}, "chunk_rwkv7"),
    ("mamba_ssm", "hybrid", {"pattern": ["mamba", "mamba2", "mamba3", "attention"]},
     {"causal_conv1d_fn", "causal_conv1d_update", "selective_scan_fn", "selective_state_update",
      "mamba_chunk_scan_combined", "mamba3_siso_combined"},
     "selective_scan_fn+mamba_chunk_scan_combined+mamba3_siso_combined+torch+sdpa+numba"),
    ("fla", "hybrid", {"pattern": ["gated_delta", "rwkv", "attention"]},
     {"chunk_rwkv7", "fused_mul_recurrent_rwkv7", "chunk_gated_delta_rule",
      "fused_recurrent_gated_delta_rule"},
     "chunk_gated_delta_rule+chunk_rwkv7+sdpa+numba"),
]  # fmt: skip
IDS = [f"{backend}-{model}-{'-'.join(options)}" for backend, model, options, *_ in CASES]


def pair(backend: str, model: str, options: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    ours = build(model, "language", task=options).eval()
    return ours, BACKENDS[backend].adopt(copy.deepcopy(ours))


@pytest.mark.parametrize(("backend", "model", "options", "called", "kernel"), CASES, ids=IDS)
def test_logits_states_and_gradients_are_those_of_our_form(
    libraries: Counter[str], backend: str, model: str, options: Any, called: set[str], kernel: str
) -> None:
    ours, theirs = pair(backend, model, options)
    given = batch("language")
    seen = agreement(ours, theirs, given, torch.float32)
    assert seen.difference < 1e-4
    tokens = torch.cat([given["tokens"]] * 2, 1)
    with torch.no_grad():  # long enough for the chunks of fla, and from a state
        whole, _ = ours.prefill(tokens)
        first, state = theirs.prefill(tokens[:, :70])
        second, _ = theirs.prefill(tokens[:, 70:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-4, rtol=1e-4)
    assert theirs.backbone.kernel_used == kernel

    def gradients(net: nn.Module) -> dict[str, torch.Tensor]:
        net.zero_grad()
        logits, state = net.prefill(tokens[:, :9])
        more, _ = net.prefill(tokens[:, 9:20], state)
        forward = net(tokens=tokens[:, :20]).logits
        torch.cat([logits, more, forward], 1).square().mean().backward()
        return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}

    expected, found = gradients(ours), gradients(theirs)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        scale = float(value.abs().max()) or 1.0
        torch.testing.assert_close(found[name] / scale, value / scale, atol=1e-3, rtol=1e-3)
    assert set(libraries) == called


@pytest.mark.parametrize(("backend", "model", "options"), [c[:3] for c in CASES], ids=IDS)
def test_in_bfloat16_and_under_autocast(
    libraries: Counter[str], backend: str, model: str, options: Any
) -> None:
    ours, theirs = pair(backend, model, options)
    given = batch("language")
    short = [copy.deepcopy(net).bfloat16() for net in (ours, theirs)]
    assert agreement(*short, given, torch.bfloat16).holds
    with torch.autocast("cpu", torch.bfloat16):
        logits = theirs(tokens=given["tokens"]).logits
        with torch.no_grad():
            step, _ = theirs.step(given["tokens"][:, 0], theirs.prefill(given["tokens"])[1])
    exact = ours(tokens=given["tokens"]).logits
    assert (logits - exact).abs().max() < 5e-2 * exact.abs().max()
    assert step.isfinite().all()


def test_symbols_that_write_a_state() -> None:
    from models.backbones.selective_scan import selective_scan_reference

    generator = torch.Generator().manual_seed(0)
    state = torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
    A = -torch.rand(5, 16, generator=generator, dtype=torch.float64) * 40
    u, delta, B = symbols_of(state, A)
    blind = torch.zeros(2, 16, 16, dtype=torch.float64)
    zeros = torch.zeros_like(u.mT)
    given = (u.mT, delta.mT, A, B.mT.double(), blind, torch.zeros(5).double(), zeros)
    _, last = selective_scan_reference(*given, None)
    torch.testing.assert_close(last, state, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_a_state_is_carried_without_loss(libraries: Counter[str], dtype: torch.dtype) -> None:
    """Through a scan in a short type too, over a symbol of no duration."""
    _, theirs = pair("mamba_ssm", "mamba", {"d_state": 64})
    mixer = theirs.backbone.layers[0].mixer.to(dtype)
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(2, mixer.d_inner, mixer.d_state, generator=generator) * 100
    u = torch.ones(2, 1, mixer.d_inner, dtype=dtype)
    B = torch.ones(2, 1, mixer.d_state, dtype=dtype)
    y, last = mixer._scan(u, torch.zeros_like(u), B, B, u, state)
    assert y.shape == u.shape
    torch.testing.assert_close(last, state, atol=0, rtol=2e-5)


@pytest.mark.parametrize(
    ("backend", "model", "options", "words"),
    [
        ("mamba_ssm", "rwkv", {}, "it computes mamba, mamba2 and mamba3"),
        ("mamba_ssm", "mamba", {"d_state": 300}, "d_state is 300; its scan holds at most 256"),
        (
            "mamba_ssm",
            "mamba",
            {"negative_eigenvalues": True},
            "negative_eigenvalues=true is unknown to the kernels of mamba_ssm",
        ),
        ("mamba_ssm", "mamba", {"selective": False}, "selective=false is unknown"),
        ("mamba_ssm", "mamba2", {"negative_eigenvalues": True}, "negative_eigenvalues=true is"),
        ("mamba_ssm", "mamba", {"d_conv": 5}, "d_conv is 5; causal-conv1d holds at most 4"),
        ("mamba_ssm", "mamba3", {"headdim": 37}, r"headdim is 37; .*model.backbone.headdim=64"),
        ("mamba_ssm", "mamba3", {"headdim": 32, "mimo_rank": 2}, "mimo_rank is 2"),
        ("mamba_ssm", "mamba3", {"headdim": 8}, "headdim=16"),
        ("fla", "mamba", {}, "it computes rwkv and gated_delta"),
    ],
)
def test_what_the_kernels_do_not_hold(
    libraries: Counter[str], backend: str, model: str, options: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        pair(backend, model, options)


def test_where_they_run() -> None:
    assert cuda_problem(torch.device("cuda"), torch.bfloat16) is None
    assert cuda_problem(torch.device("cpu"), torch.float32) == (
        "it runs on CUDA in float32 or bfloat16 or float16, not on cpu in float32"
    )
    mamba3 = MambaSsm(types=["bfloat16"])
    assert mamba3.problem(torch.device("cuda"), torch.float32) == (
        "it runs on CUDA in bfloat16, not on cuda in float32"
    )
    assert FlashLinearAttention().problem(torch.device("cuda"), torch.float64) is not None


def test_a_library_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fla", ModuleType("fla"))  # a module, and no package
    with pytest.raises(ValueError, match=r"fla.ops.rwkv7.chunk_rwkv7 cannot be imported .*torch 2"):
        pair("fla", "rwkv", {})


MAMBA3_INSTALL = 'pip install --no-build-isolation "mamba-ssm>=2.3.2"'
WITHOUT_MAMBA3 = (
    f"mamba_ssm 2.3.0 is installed and has no Mamba-3; needed is 2.3.2 or later: {MAMBA3_INSTALL}"
)


def test_a_release_without_mamba3(libraries: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("mamba_ssm.ops.triton.mamba3")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys.modules["mamba_ssm"], "__version__", "2.3.0", raising=False)
    with pytest.raises(ValueError, match=f"^{re.escape(WITHOUT_MAMBA3)}$"):
        pair("mamba_ssm", "mamba3", {"headdim": 32})
    pair("mamba_ssm", "mamba2", {})
    tree = yaml.safe_load((CONFIGS / "model" / "mamba3.yaml").read_text())
    assert tree["backends"]["mamba_ssm"]["install"] == MAMBA3_INSTALL


def test_doctor_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = {name: code for name, _, code in doctor.BACKENDS}
    package = tmp_path / "mamba_ssm"
    (package / "ops" / "triton").mkdir(parents=True)
    for folder in (package / "ops", package / "ops" / "triton"):
        (folder / "__init__.py").touch()
    (package / "__init__.py").write_text("__version__ = '2.3.0'")
    (tmp_path / "selective_scan_cuda.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert doctor.attempt(codes["mamba_ssm"]) == (True, "2.3.0")
    assert doctor.attempt(codes["mamba_ssm 2.3.2"]) == (False, f"AssertionError: {WITHOUT_MAMBA3}")
