"""Small models whose single steps are fused, and the same ones whose steps are torch's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.backbones.hybrid import Hybrid
from models.backbones.mamba import Mamba
from models.backbones.mamba2 import Mamba2
from models.backbones.moe import MoE
from models.backbones.rwkv7 import RWKV7
from models.backbones.transformer import Transformer

Build = Callable[..., nn.Module]


def rwkv(
    kernel: str, heads: int = 3, width: int = 5, scale: int = 1, negative: bool = False, **_: Any
) -> nn.Module:
    return RWKV7(d_model=heads * width, n_layers=3, head_size=width, d_ff=7 * scale, decay_rank=3,
                 rate_rank=5, value_rank=1, gate_rank=6, negative_eigenvalues=negative, chunk=8,
                 kernel=kernel)  # fmt: skip


def mamba(
    kernel: str, heads: int = 3, width: int = 5, scale: int = 1, negative: bool = False, **_: Any
) -> nn.Module:
    return Mamba(d_model=9 * scale, n_layers=2, d_inner=heads * width, d_state=width,
                 d_conv=2 + heads, dt_rank=None, selective=True, negative_eigenvalues=negative,
                 norm_eps=1e-5, kernel=kernel, residual_init="scaled")  # fmt: skip


def mamba2(
    kernel: str, heads: int = 3, width: int = 5, groups: int = 1, scale: int = 1,
    negative: bool = False,
) -> nn.Module:  # fmt: skip
    return Mamba2(d_model=9 * scale, n_layers=2, nheads=heads * groups, headdim=width, d_state=7,
                  ngroups=groups, d_conv=3, chunk_size=8, negative_eigenvalues=negative,
                  norm_eps=1e-5, kernel=kernel, residual_init="scaled")  # fmt: skip


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


def hybrid(
    kernel: str, heads: int = 3, width: int = 5, groups: int = 1, scale: int = 1
) -> nn.Module:
    """Of attention and Mamba-1."""
    attention = {"n_heads": heads * groups, "n_kv_heads": groups, "qk_norm": False,
                 "rope_theta": 1e4, "kernel": "eager" if kernel == "torch" else "sdpa"}  # fmt: skip
    mamba = {
        "expand": 2,
        "d_state": 4,
        "d_conv": 3,
        "selective": True,
        "negative_eigenvalues": False,
        "kernel": kernel,
    }
    return Hybrid(pattern=["attention", "mamba"], d_model=2 * width * heads * groups, n_layers=2,
                  d_ff=11 * scale, mlp="swiglu", attention=attention, mamba=mamba, mamba2={},
                  mamba3={}, rwkv={}, gated_delta={}, norm_eps=1e-6)  # fmt: skip


FAMILIES: dict[str, Build] = {
    "rwkv": rwkv, "mamba": mamba, "mamba2": mamba2, "transformer": decoder, "moe": mixture,
    "squared": partial(decoder, mlp="relu2"), "unshared": partial(mixture, d_shared=0),
    "hybrid": hybrid,
}  # fmt: skip
# With eigenvalues in [-1, 1].
SIGNED: dict[str, Build] = {
    f"signed {build.__name__}": partial(build, negative=True) for build in (rwkv, mamba, mamba2)
}


def pair(family: str, dtype: torch.dtype = torch.float32, **sizes: int) -> list[nn.Module]:
    """The fused model and torch's with the same weights, none of them special."""
    torch.manual_seed(0)
    fused, plain = (
        (FAMILIES | SIGNED)[family](k, **sizes).to(dtype).eval() for k in ("auto", "torch")
    )
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
