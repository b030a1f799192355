"""Gated DeltaNet: its forms against one another, and the mixer against that of transformers."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, Qwen3NextConfig
from transformers.models.qwen3_next import modeling_qwen3_next as official

from models.backbones.gated_delta import (
    GatedDeltaMixer,
    gated_delta_chunked,
    gated_delta_fused,
    gated_delta_reference,
    unit,
)
from tests.models.kernels import KERNELS, needs_numba
from tests.zoo import randomise


def inputs(
    length: int, *, groups: int = 2, K: int = 5, V: int = 3, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """q, k, v, g, beta, state of `gated_delta_reference` with four heads, asking for gradients."""
    generator = torch.Generator().manual_seed(length)
    normal = partial(torch.randn, generator=generator, dtype=dtype)
    uniform = partial(torch.rand, generator=generator, dtype=dtype)
    tensors = [
        normal(2, length, groups, K),
        unit(normal(2, length, groups, K)),
        normal(2, length, 4, V),
        -3 * uniform(2, length, 4),
        uniform(2, length, 4),
        normal(2, 4, V, K),
    ]
    return [t.requires_grad_() for t in tensors]


def results(function: Any, tensors: list[Tensor], with_state: bool) -> list[Tensor]:
    """Outputs, last state, and the gradients of what was given."""
    leaves = tensors if with_state else tensors[:-1]
    o, last = function(*tensors[:-1], tensors[-1] if with_state else None)
    weights = torch.linspace(-1, 1, o.numel(), dtype=o.dtype).view_as(o)
    loss = (o * weights).sum() + last.square().sum()
    return [o, last, *torch.autograd.grad(loss, leaves)]


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 50),
    chunk=st.integers(1, 20),
    groups=st.sampled_from([1, 2, 4]),
    with_state=st.booleans(),
)
def test_chunked_form_equals_the_recurrence(
    length: int, chunk: int, groups: int, with_state: bool
) -> None:
    tensors = inputs(length, groups=groups)
    chunked = results(partial(gated_delta_chunked, chunk=chunk), tensors, with_state)
    for ours, plain in zip(
        chunked, results(gated_delta_reference, tensors, with_state), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize(("length", "groups"), [(1, 1), (16, 2), (45, 4)])
@needs_numba
def test_the_kernel_of_rwkv_computes_the_rule(length: int, groups: int, with_state: bool) -> None:
    tensors = inputs(length, groups=groups, V=5)
    fused = results(gated_delta_fused, tensors, with_state)
    for ours, plain in zip(fused, results(gated_delta_reference, tensors, with_state), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("with_state", [False, True])
@torch.no_grad()
def test_the_recurrence_is_that_of_transformers(with_state: bool) -> None:
    q, k, v, g, beta, state = inputs(23, dtype=torch.float32)
    first = state if with_state else None
    o, last = gated_delta_reference(q * q.shape[-1] ** -0.5, k, v, g, beta, first)
    for theirs in (
        official.torch_recurrent_gated_delta_rule,
        partial(official.torch_chunk_gated_delta_rule, chunk_size=8),
    ):
        before = state.mT if with_state else None
        expected, after = theirs(q, k, v, g, beta, initial_state=before, output_final_state=True)
        torch.testing.assert_close(o, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(last.mT, after, rtol=1e-5, atol=1e-5)


def test_gradcheck_of_the_chunked_form() -> None:
    torch.autograd.gradcheck(partial(gated_delta_chunked, chunk=3), inputs(7, K=3, V=2))


def test_strong_decay_does_not_overflow() -> None:
    tensors = inputs(64, dtype=torch.float32)
    with torch.no_grad():
        tensors[3] *= 1000
    chunked = results(partial(gated_delta_chunked, chunk=32), tensors, True)
    assert all(t.isfinite().all() for t in chunked)
    # Differences of sums of thousands: what decays keep of their digits is what rounding leaves.
    for ours, plain in zip(
        chunked[:2], results(gated_delta_reference, tensors, True)[:2], strict=True
    ):
        assert (ours - plain).norm() < 1e-3 * plain.norm()


def small(kernel: str = "torch", **changes: Any) -> GatedDeltaMixer:
    torch.manual_seed(0)
    options = {
        "d_model": 16,
        "num_k_heads": 2,
        "num_v_heads": 4,
        "head_k_dim": 6,
        "head_v_dim": 6,
        "conv_kernel_size": 4,
        "chunk_size": 8,
        "negative_eigenvalues": False,
        "norm_eps": 1e-6,
        "kernel": kernel,
        "residual_init": "scaled",
        "n_layers": 2,
        **changes,
    }
    mixer = GatedDeltaMixer(**options)
    return randomise(mixer)  # type: ignore[return-value]


def of_transformers(mixer: GatedDeltaMixer) -> official.Qwen3NextGatedDeltaNet:
    """The official module with the same sizes and weights."""
    config = Qwen3NextConfig(
        hidden_size=mixer.out_proj.out_features,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        linear_num_key_heads=mixer.num_k_heads,
        linear_num_value_heads=mixer.num_v_heads,
        linear_key_head_dim=mixer.head_k_dim,
        linear_value_head_dim=mixer.head_v_dim,
        linear_conv_kernel_dim=mixer.conv1d.width,
        rms_norm_eps=1e-6,
    )
    theirs = official.Qwen3NextGatedDeltaNet(config, layer_idx=0)
    theirs.load_state_dict(mixer.state_dict())
    return theirs


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "sizes",
    [{}, {"num_v_heads": 2}, {"num_k_heads": 1}, {"head_k_dim": 5, "head_v_dim": 7}],
    ids=str,
)
def test_outputs_and_gradients_equal_those_of_transformers(kernel: str, sizes: dict) -> None:
    if kernel == "numba" and "head_k_dim" in sizes:
        with pytest.raises(ValueError, match="kernel=numba"):  # its states are square
            small(kernel, **sizes)(torch.randn(2, 45, 16), None)
        return
    ours = small(kernel, **sizes)
    theirs = of_transformers(ours)
    x = torch.randn(2, 45, 16)
    weights = torch.randn(2, 45, 16)
    found, _ = ours(x, None)
    expected = theirs(x)
    assert expected.std() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    grads = {}
    for name, module, out in (("ours", ours, found), ("theirs", theirs, expected)):
        (out * weights).sum().backward()
        grads[name] = {key: p.grad for key, p in module.named_parameters()}
    for key, value in grads["theirs"].items():
        assert (grads["ours"][key] - value).norm() < 1e-4 * value.norm(), key


@torch.no_grad()
def test_prefill_and_steps_equal_those_of_transformers() -> None:
    ours = small()
    theirs, x = of_transformers(ours), torch.randn(2, 20, 16)
    config = Qwen3NextConfig(num_hidden_layers=1, layer_types=["linear_attention"])
    cache = DynamicCache(config=config)
    state = ours.init_state(2, device=x.device, dtype=x.dtype)
    for piece in x.split([13, *[1] * 7], 1):
        if piece.shape[1] == 1:
            found, state = ours.step(piece[:, 0], state)
            found = found[:, None]
        else:
            found, state = ours(piece, state)
        torch.testing.assert_close(found, theirs(piece, cache), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=15, deadline=None)
@given(pieces=st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_parallel_pieces_and_steps_agree(kernel: str, pieces: list[int]) -> None:
    mixer, x = small(kernel).double(), torch.randn(2, sum(pieces), 16, dtype=torch.float64)
    with torch.no_grad():
        whole, none = mixer(x, None)
        assert none is None
        state = mixer.init_state(2, device=x.device, dtype=x.dtype)
        parts = []
        for piece in x.split(pieces, 1):
            out, state = mixer(piece, state)
            parts.append(out)
        stepped, other = [], mixer.init_state(2, device=x.device, dtype=x.dtype)
        for t in range(x.shape[1]):
            out, other = mixer.step(x[:, t], other)
            stepped.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    torch.testing.assert_close(torch.stack(stepped, 1), whole)
    assert state is not None
    torch.testing.assert_close(state.window, other.window)
    torch.testing.assert_close(state.ssm, other.ssm)
    assert sum(t.nbytes for t in state) == mixer.state_bytes(2, x.shape[1], x.dtype)


def test_flops_equal_torchs_count_on_the_matrix_products() -> None:
    mixer, x = small(head_v_dim=5), torch.randn(2, 24, 16)  # three whole chunks
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        mixer(x, None)
    H, C, K, V = 4, 8, 6, 5
    # The solve and everything by element are no matrix products.
    solve = H * C * (V + K)
    rest = 2 * 4 * (2 * 2 * K + H * V) + H * (5 * C + 2 * V + 4 * K) + 2 * K * H * V // C
    rest += 6 * 2 * K + 9 * H * V
    assert 48 * (mixer.flops_per_symbol(24) - solve - rest) == counter.get_total_flops()


@torch.no_grad()
def test_half_precision_keeps_the_state_wide() -> None:
    mixer, x = small(), torch.randn(2, 20, 16)
    exact, _ = mixer(x, None)
    half = mixer.bfloat16()
    state = half.init_state(2, device=x.device, dtype=torch.bfloat16)
    out, state = half(x.bfloat16(), state)
    assert state is not None
    assert state.ssm.dtype == torch.float32
    stepped, _ = half.step(x[:, 0].bfloat16(), state)
    assert out.dtype == stepped.dtype == torch.bfloat16
    assert (out - exact).abs().max() < 0.1
