"""Fused steps of decoding against torch's own, over shapes, types, threads and changed weights."""

import copy
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.backbones import norm
from models.backbones.mamba import Mamba, MambaMixer
from models.backbones.mamba2 import Mamba2, Mamba2Mixer
from models.backbones.moe import MoE
from models.backbones.rwkv7 import RWKV7
from models.backbones.transformer import Transformer
from models.kernels.available import numba_problem
from models.kernels.matvec import FEW
from models.kernels.mlp_step import FusedBlock
from models.kernels.rms_norm import rms_norm_fused

pytestmark = pytest.mark.skipif(numba_problem() is not None, reason=str(numba_problem()))
Build = Callable[..., nn.Module]


def rwkv(kernel: str, heads: int = 3, width: int = 5, scale: int = 1, **_: Any) -> nn.Module:
    return RWKV7(d_model=heads * width, n_layers=3, head_size=width, d_ff=7 * scale, decay_rank=3,
                 rate_rank=5, value_rank=1, gate_rank=6, chunk=8, kernel=kernel)  # fmt: skip


def mamba(kernel: str, heads: int = 3, width: int = 5, scale: int = 1, **_: Any) -> nn.Module:
    return Mamba(d_model=9 * scale, n_layers=2, d_inner=heads * width, d_state=width,
                 d_conv=2 + heads, dt_rank=None, norm_eps=1e-5, kernel=kernel,
                 residual_init="scaled")  # fmt: skip


def mamba2(
    kernel: str, heads: int = 3, width: int = 5, groups: int = 1, scale: int = 1
) -> nn.Module:
    return Mamba2(d_model=9 * scale, n_layers=2, nheads=heads * groups, headdim=width, d_state=7,
                  ngroups=groups, d_conv=3, chunk_size=8, norm_eps=1e-5, kernel=kernel,
                  residual_init="scaled")  # fmt: skip


def decoder(
    kernel: str,
    heads: int = 3,
    width: int = 5,
    groups: int = 1,
    scale: int = 1,
    mlp: str = "swiglu",
) -> nn.Module:
    """`kernel` "torch" is eager attention, whose step is never fused."""
    return Transformer(d_model=2 * width * heads * groups, n_layers=2, n_heads=heads * groups,
                       n_kv_heads=groups, d_ff=11 * scale, causal=True, qk_norm=width % 2 == 1,
                       attention="eager" if kernel == "torch" else "sdpa", mlp=mlp,
                       rope_theta=1e4, norm_eps=1e-6, residual_init=1.0)  # fmt: skip


def mixture(kernel: str, heads: int = 3, scale: int = 1, d_shared: int = 3, **_: Any) -> nn.Module:
    return MoE(d_model=8 * heads * scale, n_layers=2, n_heads=heads, n_kv_heads=1, n_experts=4,
               d_expert=6 * scale, top_k=2, d_shared=d_shared, balance_weight=0.0, z_weight=0.0,
               causal=True, qk_norm=True, attention="eager" if kernel == "torch" else "sdpa",
               rope_theta=1e4, norm_eps=1e-6, residual_init=1.0)  # fmt: skip


FAMILIES: dict[str, Build] = {
    "rwkv": rwkv, "mamba": mamba, "mamba2": mamba2, "transformer": decoder, "moe": mixture,
    "squared": partial(decoder, mlp="relu2"), "unshared": partial(mixture, d_shared=0),
}  # fmt: skip


def pair(family: str, dtype: torch.dtype = torch.float32, **sizes: int) -> list[nn.Module]:
    """The fused model and torch's with the same weights, none of them special."""
    torch.manual_seed(0)
    fused, plain = (FAMILIES[family](k, **sizes).to(dtype).eval() for k in ("auto", "torch"))
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    plain.load_state_dict(fused.state_dict())
    return [fused, plain]


@torch.no_grad()
def written(model: Any, x: Tensor, read: int) -> Tensor:
    """Reads `read` symbols, then takes single steps: their hidden vectors (B, T - read, D)."""
    state = model.init_state(len(x), device=x.device, dtype=x.dtype)
    if read:
        _, state = model.prefill(x[:, :read], state)
    steps = []
    for symbol in x[:, read:].unbind(1):
        hidden, state = model.step(symbol, state)
        steps.append(hidden)
    return torch.stack(steps, 1)


def inputs(model: Any, batch: int, length: int, dtype: torch.dtype = torch.float32) -> Tensor:
    g = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, model.d_model, generator=g, dtype=dtype)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    heads=st.integers(1, 4), width=st.integers(2, 9), groups=st.integers(1, 2),
    read=st.integers(0, 70), threads=st.integers(1, 2),
)  # fmt: skip
def test_steps_are_torchs(
    family: str, heads: int, width: int, groups: int, read: int, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-4)):
            fused, plain = pair(family, dtype, heads=heads, width=width, groups=groups)
            x = inputs(fused, 1, read + 5, dtype)
            expected = written(plain, x, read)
            slack = tolerance * float(expected.abs().max())
            torch.testing.assert_close(written(fused, x, read), expected, rtol=0, atol=slack)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_share_a_large_step(family: str, threads: int) -> None:
    """Matrices of more numbers, and a longer context, than are left to one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        fused, plain = pair(family, heads=4, width=64, groups=1, scale=32)
        assert max(p.numel() for p in fused.parameters()) >= FEW
        x = inputs(fused, 1, 133)
        expected = written(plain, x, 130)
        slack = 2e-4 * float(expected.abs().max())
        torch.testing.assert_close(written(fused, x, 130), expected, rtol=0, atol=slack)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fused_form_runs(family: str) -> None:
    """And where it cannot, torch's does: for several sequences, with gradients, in bf16."""
    fused, _ = pair(family)
    module, name = {
        "rwkv": (RWKV7, "_fused_step"), "mamba": (MambaMixer, "_fused_step"),
        "mamba2": (Mamba2Mixer, "_fused_step"), "transformer": (FusedBlock, "__call__"),
        "moe": (FusedBlock, "__call__"), "squared": (FusedBlock, "__call__"),
        "unshared": (FusedBlock, "__call__"),
    }[family]  # fmt: skip
    whole = getattr(module, name)
    with mock.patch.object(module, name, autospec=True, side_effect=whole) as seen:
        written(fused, inputs(fused, 1, 3), 0)
        assert seen.call_count
        seen.reset_mock()
        written(fused, inputs(fused, 3, 3), 0)
        x = inputs(fused, 1, 1)
        fused.step(x[:, 0], fused.init_state(1, device=x.device, dtype=x.dtype))  # type: ignore[operator]
        half = copy.deepcopy(fused).bfloat16()
        written(half, inputs(half, 1, 2, torch.bfloat16), 0)
        assert not seen.call_count


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_follow_the_weights(family: str) -> None:
    """After an update in place, a load, a load that replaces them, a cast and a copy."""
    fused, plain = pair(family)
    x = inputs(fused, 1, 6)

    def check(model: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
        plain.to(dtype).load_state_dict(model.state_dict())
        got = written(model, x.to(dtype), 2)
        expected = written(plain, x.to(dtype), 2)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        return got

    seen = [check(fused)]
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.mul_(1.1)
    seen.append(check(fused))
    other = {n: p * 0.8 for n, p in fused.state_dict().items()}
    fused.load_state_dict(other)
    seen.append(check(fused))
    fused.load_state_dict({n: p * 0.9 for n, p in other.items()}, assign=True)
    seen.append(check(fused))
    twin = copy.deepcopy(fused)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.2)
    seen += [check(twin), check(fused)]
    assert torch.equal(seen[-1], seen[-3])
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in itertools.pairwise(seen))
    check(fused.double(), torch.float64)


class Adapted(nn.Module):
    """A layer and what LoRA (arXiv:2106.09685) adds to it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.more = base, nn.Linear(base.in_features, base.out_features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + self.more(x)
        return out


LAYERS = {
    "rwkv": ("blocks.1.att.key", "blocks.2.ffn.value"), "mamba": ("layers.1.mixer.x_proj",),
    "mamba2": ("layers.0.mixer.in_proj", "layers.1.mixer.out_proj"),
    "transformer": ("layers.1.self_attn.v_proj", "layers.0.mlp.gate_proj"),
    "squared": ("layers.1.mlp.down_proj",), "unshared": ("layers.1.mlp.gate",),
    "moe": ("layers.1.mlp.shared.up_proj", "layers.0.self_attn.o_proj"),
}  # fmt: skip


@pytest.mark.parametrize(("family", "name"), [(f, n) for f in FAMILIES for n in LAYERS[f]])
@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_layer_that_was_adapted_is_called(
    family: str, name: str, hooked: bool, batch: int
) -> None:
    """The parallel form calls it, and a step after others has to write the same."""
    model, _ = pair(family)
    x = inputs(model, batch, 4)
    before = written(model, x, 2)
    if hooked:
        model.get_submodule(name).register_forward_hook(lambda layer, given, out: 2 * out)
    else:
        parent, _, own = name.rpartition(".")
        layer = Adapted(model.get_submodule(name))  # type: ignore[arg-type]
        setattr(model.get_submodule(parent), own, layer)
    after = written(model, x, 2)
    with torch.no_grad():
        expected = model(x)[0][:, 2:]
    torch.testing.assert_close(after, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(after, before, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_put_in_another_place_is_seen(family: str) -> None:
    """After steps that looked at what was there: every parameter anew, and a layer."""
    model, plain = pair(family)
    x = inputs(model, 1, 4)
    written(model, x, 2)
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(1.2 * parameter.detach()))
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(written(model, x, 2), written(plain, x, 2), rtol=1e-4, atol=1e-4)
    name = LAYERS[family][-1]
    parent, _, own = name.rpartition(".")
    layer = copy.deepcopy(model.get_submodule(name))
    with torch.no_grad():
        next(layer.parameters()).mul_(2)
    setattr(model.get_submodule(parent), own, layer)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(written(model, x, 2), written(plain, x, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_input_that_does_not_fit_is_torchs_error(family: str) -> None:
    model, _ = pair(family)
    state = model.init_state(1, device=torch.device("cpu"), dtype=torch.float32)  # type: ignore[operator]
    x = inputs(model, 1, 1)[:, 0]
    with torch.no_grad():
        for wrong in (x[:, :2], torch.cat([x, x], 1), x.double()):
            with pytest.raises(RuntimeError):
                model.step(wrong, state)  # type: ignore[operator]


@torch.no_grad()
def test_a_cache_that_grows_and_is_cropped() -> None:
    fused, plain = pair("transformer", heads=2, width=4, groups=2)
    x, outputs = inputs(fused, 1, 160), []
    for model in (fused, plain):
        state: Any = model.init_state(1, device=x.device, dtype=x.dtype)  # type: ignore[operator]
        rows = []
        for t in range(160):
            if t == 90:
                state = model.crop(state, 20)  # type: ignore[operator]
            hidden, state = model.step(x[:, t], state)  # type: ignore[operator]
            rows.append(hidden)
        outputs.append(torch.cat(rows))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norm_of_a_few_rows(dtype: torch.dtype) -> None:
    x, weight = torch.randn(3, 2, 37, dtype=dtype), torch.randn(37, dtype=dtype)
    for given_ in (x, x.transpose(0, 1)):
        expected = nn.functional.rms_norm(given_, (37,), weight, 1e-5)
        torch.testing.assert_close(rms_norm_fused(given_, weight, 1e-5), expected)
    layer = norm.RMSNorm(37, 1e-5).to(dtype)
    with torch.no_grad():
        few, many = layer(x), layer(x.repeat(99, 1, 1))[:3]
    torch.testing.assert_close(few, many)
