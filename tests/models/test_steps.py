"""Fused steps of decoding against torch's own, over shapes, types, threads and states."""

import copy
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.backbones import norm
from models.backbones.mamba import MambaMixer
from models.backbones.mamba2 import Mamba2Mixer
from models.backbones.rwkv7 import RWKV7
from models.kernels.available import numba_problem
from models.kernels.rms_norm import rms_norm_fused
from tests.models.kernels import needs_numba
from tests.models.steps import FAMILIES, SIGNED, inputs, pair, written

pytestmark = needs_numba
if numba_problem() is None:
    from models.kernels.attention_step import FusedAttention
    from models.kernels.matvec import FEW, add_matvec, add_vecmat, matvec


@pytest.mark.parametrize("family", [*FAMILIES, *SIGNED])
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
def test_threads_share_a_large_step(family: str) -> None:
    """Matrices of more numbers, and a longer context, than are left to one thread."""
    fused, plain = pair(family, heads=5, width=61, groups=2, scale=33)
    assert max(p.numel() for p in fused.parameters()) >= FEW
    x = inputs(fused, 1, 133)
    expected = written(plain, x, 130)
    slack = 2e-4 * float(expected.abs().max())
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(written(fused, x, 0))
    finally:
        torch.set_num_threads(before)
    # Mamba's matrices are torch's in a hybrid, which sums in an order that depends on its threads.
    rounding = slack / 10 if family == "hybrid" else 0
    torch.testing.assert_close(*found, rtol=0, atol=rounding)
    torch.testing.assert_close(written(fused, x, 130), expected, rtol=0, atol=slack)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fused_form_runs(family: str) -> None:
    """And where it cannot, torch's does: of several sequences, with gradients, in bf16, counted."""
    fused, _ = pair(family)
    module, name = {
        "rwkv": (RWKV7, "_step_by_kernel"), "mamba": (MambaMixer, "run_kernel"),
        "mamba2": (Mamba2Mixer, "run_kernel"), "hybrid": (FusedAttention, "step"),
    }.get(family, (FusedAttention, "half"))  # fmt: skip
    whole = getattr(module, name)
    with mock.patch.object(module, name, autospec=True, side_effect=whole) as seen:
        written(fused, inputs(fused, 1, 3), 0)
        assert seen.call_count
        seen.reset_mock()
        written(fused, inputs(fused, 3, 3), 0)
        x = inputs(fused, 1, 1)
        fused.step(x[:, 0], fused.init_state(1, device=x.device, dtype=x.dtype))  # type: ignore[operator]
        with torch.autocast("cpu", torch.bfloat16):
            written(fused, x, 0)
        with FlopCounterMode(display=False):
            written(fused, x, 0)
        half = copy.deepcopy(fused).bfloat16()
        written(half, inputs(half, 1, 2, torch.bfloat16), 0)
        assert not seen.call_count


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


@needs_numba
@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (500, 140), (140, 500), (7, 9400), (9400, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_with_a_vector(shape: tuple[int, int], dtype: Any) -> None:
    """Below and above what one thread does alone, with a part of a block at the end."""
    from models.kernels.compiled import share_threads

    generator = np.random.default_rng(0)
    W, x, y, base = (
        generator.standard_normal(s).astype(dtype) for s in (shape, shape[1], shape[0], shape[0])
    )
    near = {"rtol": 0, "atol": (1e-4 if dtype == np.float32 else 1e-11)}
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        share_threads()
        try:
            product, added, place = np.empty_like(y), np.empty_like(y), base.copy()
            across = np.ones_like(x)
            matvec(W, x, product)
            add_matvec(base, W, x, added)
            add_matvec(place, W, x, place)
            add_vecmat(dtype(0.5), y, W, across)
        finally:
            torch.set_num_threads(before)
        wide = W.astype(np.float64)
        np.testing.assert_allclose(product, wide @ x, **near)
        np.testing.assert_allclose(added, base + wide @ x, **near)
        np.testing.assert_array_equal(place, added)
        np.testing.assert_allclose(across, 1 + 0.5 * (y @ wide), **near)
        found.append((product, added, across))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_state_that_training_left(family: str) -> None:
    """It is continued, and what autograd saved is left alone."""
    model, _ = pair(family)
    x = inputs(model, 1, 4)
    state: Any = model.init_state(1, device=x.device, dtype=x.dtype)  # type: ignore[operator]
    hidden, state = model.prefill(x[:, :3], state)  # type: ignore[operator]
    with torch.no_grad():
        last, _ = model.step(x[:, 3].requires_grad_(), state)  # type: ignore[operator]
        expected = model(x)[0][:, 3]
        torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)
    hidden.sum().backward()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_state_of_another_batch_is_left_to_torch(family: str) -> None:
    """It refuses it, or takes the symbol for that of every sequence."""
    said = []
    for model in pair(family):
        x = inputs(model, 3, 3)
        state: Any = model.init_state(3, device=x.device, dtype=x.dtype)  # type: ignore[operator]
        _, state = model.prefill(x[:, :2], state)  # type: ignore[operator]
        try:
            hidden, _ = model.step(x[:1, 2], state)  # type: ignore[operator]
            said.append(hidden.shape)
        except RuntimeError as error:
            said.append(str(error))
    assert said[0] == said[1]
    assert said[0] != (1, x.shape[-1]), "of one sequence alone"
