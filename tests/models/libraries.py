"""Stand-ins for mamba_ssm, causal_conv1d and fla, whose kernels need CUDA.

Each function has the official signature, refuses what the official one refuses, and computes by our
plain references: what is tested with them is what the backends pass and what they make of the
result. `calls` counts who was called.
"""

import math
import sys
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbones.gated_delta import gated_delta_reference
from models.backbones.mamba3 import trapezoid_reference, turn
from models.backbones.selective_scan import selective_scan_reference
from models.backbones.ssd import ssd_reference
from models.backbones.wkv7 import wkv7_reference

calls: Counter[str] = Counter()


def kernel_type(*tensors: Tensor) -> None:
    assert {t.dtype for t in tensors} <= {tensors[0].dtype}
    assert tensors[0].dtype in (torch.float32, torch.bfloat16, torch.float16)


def causal_conv1d_fn(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, seq_idx: None = None,
    initial_states: None = None, return_final_states: bool = False,
    final_states_out: None = None, activation: str | None = None,
) -> Tensor:  # fmt: skip
    assert bias is not None
    assert activation == "silu"
    assert initial_states is None
    kernel_type(x)
    kernel_type(weight, bias)
    dim, width = weight.shape
    assert x.shape[1] == dim
    assert 2 <= width <= 4
    assert x.stride(2) == 1 or x.stride(1) == 1
    if x.stride(1) == 1 and x.stride(2) > 1:
        assert not any(n % 8 for n in (dim, x.stride(2), x.stride(0)))
    padded = F.pad(x.to(weight.dtype), (width - 1, 0))
    return F.silu(F.conv1d(padded, weight.unsqueeze(1), bias, groups=dim)).to(x.dtype)


def causal_conv1d_update(
    x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None = None,
    activation: str | None = None, cache_seqlens: None = None, conv_state_indices: None = None,
) -> Tensor:  # fmt: skip
    assert bias is not None
    assert activation == "silu"
    kernel_type(x, conv_state)
    assert conv_state.shape == (*x.shape, weight.shape[1] - 1)
    seen = torch.cat([conv_state, x.unsqueeze(-1)], -1)
    conv_state.copy_(seen[..., 1:])
    return F.silu((seen.to(weight.dtype) * weight).sum(-1) + bias).to(x.dtype)


def selective_scan_fn(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None,
    z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Any:  # fmt: skip
    assert D is not None
    assert z is not None
    kernel_type(u, delta, B, C, z)
    assert A.dtype == D.dtype == torch.float32
    if delta_bias is not None:
        delta = delta + delta_bias.unsqueeze(-1)
    if delta_softplus:
        delta = F.softplus(delta)
    over_time = (t.mT.float() for t in (u, delta))
    y, last = selective_scan_reference(
        *over_time, A, B.mT.float(), C.mT.float(), D, z.mT.float(), None
    )
    y = y.mT.to(u.dtype)
    return (y, last.detach()) if return_last_state else y  # it has no gradient


def selective_state_update(
    state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None,
    z: Tensor | None = None, dt_bias: Tensor | None = None, dt_softplus: bool = False,
    state_batch_indices: None = None,
) -> Tensor:  # fmt: skip
    assert not torch.is_grad_enabled()
    assert D is not None, "the official one cannot do without, whatever its signature says"
    assert dt_bias is not None, "the official one cannot do without, whatever its signature says"
    if not (has_heads := state.dim() > 3):
        state, x, dt, B, C = (t.unsqueeze(1) for t in (state, x, dt, B, C))
        A, D, dt_bias = (t.unsqueeze(0) for t in (A, D, dt_bias))
        z = None if z is None else z.unsqueeze(1)
    batch, heads, dim, size = state.shape
    assert x.shape == dt.shape == (batch, heads, dim)
    assert A.shape == (heads, dim, size)
    assert B.shape == C.shape == (batch, B.shape[1], size)
    assert D.shape == dt_bias.shape == (heads, dim)
    assert dt_softplus
    delta = F.softplus(dt.float() + dt_bias)
    B, C = (t.float().repeat_interleave(heads // t.shape[1], 1).unsqueeze(2) for t in (B, C))
    state.copy_(state * torch.exp(delta.unsqueeze(-1) * A) + (delta * x.float()).unsqueeze(-1) * B)
    y = (state * C).sum(-1) + D * x.float()
    if z is not None:
        y = y * F.silu(z.float())
    return (y if has_heads else y.squeeze(1)).to(x.dtype)


def mamba_chunk_scan_combined(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int,
    D: Tensor | None = None, z: Tensor | None = None, dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None, seq_idx: None = None, cu_seqlens: None = None,
    dt_softplus: bool = False, dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False, return_varlen_states: bool = False,
    state_dtype: None = None,
) -> Any:  # fmt: skip
    assert D is not None
    assert dt_bias is not None
    assert dt_softplus
    assert return_final_states
    kernel_type(x, B, C)
    delta = F.softplus(dt.float() + dt_bias)
    y, last = ssd_reference(x.float(), delta, A, B.float(), C.float(), D, initial_states)
    return y.to(x.dtype), last


def mamba3_siso_combined(
    Q: Tensor, K: Tensor, V: Tensor, ADT: Tensor, DT: Tensor, Trap: Tensor, Q_bias: Tensor,
    K_bias: Tensor, Angles: Tensor, D: Tensor | None = None, Z: Tensor | None = None,
    Input_States: tuple[Tensor, Tensor, Tensor, Tensor] | None = None, chunk_size: int = 64,
    return_final_states: bool = False, cu_seqlens: None = None,
) -> Any:  # fmt: skip
    """Without its rounding to bfloat16, which would hide what is tested."""
    assert D is not None
    assert Z is not None
    batch, length, groups, size = Q.shape
    heads, width = V.shape[2:]
    assert ADT.shape == DT.shape == Trap.shape == (batch, heads, length)
    assert Q_bias.shape == K_bias.shape == (heads, size)
    assert Angles.shape[:3] == (batch, length, heads)
    assert Angles.shape[-1] % 2 == 0
    assert Angles.shape[-1] <= size // 2
    theta = (math.pi * torch.tanh(Angles) * DT.mT.unsqueeze(-1)).cumsum(1)
    before = None
    if Input_States is not None:
        start, h, last_K, last_V = Input_States
        assert h.shape == (batch, heads, width, size)
        assert last_K.shape == (batch, heads, size)
        assert last_V.shape == (batch, heads, width)
        theta = theta + start.unsqueeze(1)
        before = (last_K.float().unsqueeze(1), last_V.float().unsqueeze(1), h)

    def turned(t: Tensor, bias: Tensor) -> Tensor:
        wide = t.float().repeat_interleave(heads // groups, 2) + bias
        return turn(wide, theta.cos(), theta.sin(), halves=False)

    q, k, v = turned(Q, Q_bias), turned(K, K_bias), V.float()
    y, last = trapezoid_reference(
        v.unsqueeze(2), ADT.mT, DT.mT, torch.sigmoid(Trap.mT.float()), k.unsqueeze(2),
        q.unsqueeze(2), before,
    )  # fmt: skip
    y = (y[:, :, 0] + D.unsqueeze(-1) * v) * F.silu(Z.float())
    out = y.to(torch.bfloat16 if V.dtype == torch.bfloat16 else torch.float32)
    if not return_final_states:
        return out
    return out, theta[:, -1].remainder(2 * math.pi), last, k[:, -1], V[:, -1]


def chunk_rwkv7(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, scale: float = 1.0,
    initial_state: Tensor | None = None, output_final_state: bool = False, cu_seqlens: None = None,
    cu_seqlens_cpu: None = None, safe_gate: bool = False, chunk_size: int | None = None,
    disable_recompute: bool = False, cp_context: None = None, lower_bound: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    assert initial_state is not None
    assert output_final_state
    assert lower_bound is not None
    kernel_type(r, w, k, v, a, b)
    assert (w >= lower_bound - 4e-3).all()  # a bfloat16 away from it
    assert (w < 0).all()
    inputs = (t.float() for t in (r * scale, w, k, v, a, b))
    o, last = wkv7_reference(*inputs, initial_state.mT)
    return o.to(r.dtype), last.mT


def fused_mul_recurrent_rwkv7(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, kk: Tensor, a: Tensor, scale: float = 1.0,
    initial_state: Tensor | None = None, output_final_state: bool = False, reverse: bool = False,
    cu_seqlens: None = None, **kwargs: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    assert not torch.is_grad_enabled()
    assert not kwargs
    return chunk_rwkv7(
        r, w, k, v, -kk, kk * a, scale, initial_state, output_final_state, lower_bound=-0.6066
    )


def chunk_gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, scale: float | None = None,
    initial_state: Tensor | None = None, output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False, **kwargs: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    assert output_final_state
    assert not kwargs
    kernel_type(q, k, v)
    scale = k.shape[-1] ** -0.5 if scale is None else scale
    state = None if initial_state is None else initial_state.mT
    inputs = (t.float() for t in (q * scale, k, v, g, beta))
    o, last = gated_delta_reference(*inputs, state)
    return o.to(q.dtype), last.mT


def fused_recurrent_gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None = None, gk: None = None, gv: None = None,
    beta: Tensor | None = None, scale: float | None = None, initial_state: Tensor | None = None,
    output_final_state: bool = False, **kwargs: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    assert not torch.is_grad_enabled()
    assert g is not None
    assert beta is not None
    assert gk is gv is None
    return chunk_gated_delta_rule(
        q, k, v, g, beta, scale, initial_state, output_final_state, **kwargs
    )


MODULES: dict[str, tuple[Callable[..., Any], ...]] = {
    "causal_conv1d": (causal_conv1d_fn, causal_conv1d_update),
    "mamba_ssm.ops.selective_scan_interface": (selective_scan_fn,),
    "mamba_ssm.ops.triton.ssd_combined": (mamba_chunk_scan_combined,),
    "mamba_ssm.ops.triton.selective_state_update": (selective_state_update,),
    "mamba_ssm.ops.triton.mamba3.mamba3_siso_combined": (mamba3_siso_combined,),
    "fla.ops.rwkv7": (chunk_rwkv7, fused_mul_recurrent_rwkv7),
    "fla.ops.gated_delta_rule": (chunk_gated_delta_rule, fused_recurrent_gated_delta_rule),
}


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The stand-ins in the place of the libraries; how often each function was called."""

    def counted(run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[run.__name__] += 1
            return run(*args, **kwargs)

        return call

    calls.clear()
    for name, functions in MODULES.items():
        module = ModuleType(name)
        for run in functions:
            setattr(module, run.__name__, counted(run))
        parts = name.split(".")
        for depth in range(1, len(parts)):
            package = ".".join(parts[:depth])
            monkeypatch.setitem(sys.modules, package, ModuleType(package))
        monkeypatch.setitem(sys.modules, name, module)
    return calls
