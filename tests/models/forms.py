"""The fused kernels as functions of tensors, and inputs for each."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from models.backbones.causal_conv import causal_conv_reference

Form = Callable[..., tuple[Tensor, Tensor]]


def scan_inputs(
    length: int, channels: int, states: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """u, delta, A, B, C, D, z and state for two items."""
    g = torch.Generator().manual_seed(length)
    normal = partial(torch.randn, generator=g, dtype=dtype)
    return [
        normal(2, length, channels),
        torch.rand(2, length, channels, generator=g, dtype=dtype) * 0.3,
        -torch.arange(1, states + 1, dtype=dtype).repeat(channels, 1),
        normal(2, length, states),
        normal(2, length, states),
        normal(channels),
        normal(2, length, channels),
        normal(2, channels, states),
    ]


def wkv_inputs(length: int, head_size: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """r, log_w, k, v, a, b and state for two items of three heads, as the model makes them."""
    g = torch.Generator().manual_seed(length)
    normal = partial(torch.randn, generator=g, dtype=dtype)
    shape = (2, length, 3, head_size)
    r, k, v, d = (normal(*shape) for _ in range(4))
    kk = torch.nn.functional.normalize(normal(*shape), dim=-1)
    rate = torch.rand(shape, generator=g, dtype=dtype)
    state = normal(2, 3, head_size, head_size)
    return [r, -0.6065 * torch.sigmoid(3 * d), k, v, -kk, kk * rate, state]


def ssd_inputs(
    length: int, headdim: int, states: int, groups: int = 1, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """x, delta, A, B, C, D and state for two items of four heads."""
    g = torch.Generator().manual_seed(length)
    normal = partial(torch.randn, generator=g, dtype=dtype)
    return [
        normal(2, length, 4, headdim),
        torch.rand(2, length, 4, generator=g, dtype=dtype) * 0.3,
        -torch.arange(1, 5, dtype=dtype),
        normal(2, length, groups, states),
        normal(2, length, groups, states),
        normal(4),
        normal(2, 4, headdim, states),
    ]


def ssd() -> Form:
    from models.kernels.ssd import ssd_fused

    return ssd_fused


def conv_inputs(
    length: int, channels: int, width: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """x, weight, bias and window for two items."""
    g = torch.Generator().manual_seed(length)
    normal = partial(torch.randn, generator=g, dtype=dtype)
    shapes = [(2, length, channels), (channels, 1, width), (channels,), (2, width - 1, channels)]
    return [normal(*shape) for shape in shapes]


def conv() -> Form:
    from models.kernels.causal_conv import causal_conv_fused

    return lambda *inputs: (causal_conv_fused(*inputs), inputs[0])


def conv_reference(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    return causal_conv_reference(*inputs), inputs[0]


def wkv4_inputs(length: int, channels: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """k, v, w, u and state for two items, the state as if something had been seen."""
    g = torch.Generator().manual_seed(length)
    normal = partial(torch.randn, generator=g, dtype=dtype)
    state = normal(2, 3, channels)
    state[:, 1] = 1 + state[:, 1].abs()
    return [
        3 * normal(2, length, channels),
        normal(2, length, channels),
        -torch.exp(2 * normal(channels) - 1),
        normal(channels),
        state,
    ]


def wkv4() -> Form:
    from models.kernels.wkv4 import wkv4_fused

    return wkv4_fused


def scan() -> Form:
    from models.kernels.selective_scan import selective_scan_fused

    return selective_scan_fused


def wkv() -> Form:
    from models.kernels.wkv7 import wkv7_fused

    return wkv7_fused
