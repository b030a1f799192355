"""Mamba without selection: the S4-like layer against its convolution and its recurrence."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.training import Recipe, Trainer
from models.backbones.mamba import Mamba, MambaMixer
from models.backbones.selective_scan import selective_scan_reference
from models.backbones.time_invariant import fft_flops, time_invariant_scan
from models.checkpoints.formats import Formats
from models.objectives.autoregressive import LanguageModel
from tests.models.test_mamba import small
from tests.zoo import randomise


def inputs(length: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """u, delta, A, B, C, D, z and state: two items of three channels with four states."""
    g = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=dtype)

    A = -torch.arange(1, 5, dtype=dtype).repeat(3, 1) + 0.1 * normal(3, 4)
    delta = torch.rand(3, generator=g, dtype=dtype) * 0.8
    return [normal(2, length, 3), delta, A, normal(3, 4), normal(3, 4), normal(3),
            normal(2, length, 3), normal(2, 3, 4)]  # fmt: skip


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("length", [1, 2, 16, 37, 100])
def test_it_is_the_convolution_of_the_paper(length: int, negative: bool) -> None:
    """Equations 3a and 3b of arXiv:2312.00752: K_t = C A-bar^t B-bar, y = u * K."""
    u, delta, A, B, C, D, z, _ = tensors = inputs(length)
    y, last = time_invariant_scan(*tensors[:-1], None, negative)
    assert last is None
    bar = np.exp(delta.numpy()[:, None] * A.numpy())
    bar = 2 * bar - 1 if negative else bar
    for item in range(2):
        for e in range(3):
            K = [(C[e].numpy() * bar[e] ** t * delta[e].item() * B[e].numpy()).sum()
                 for t in range(length)]  # fmt: skip
            out = (
                np.convolve(u[item, :, e].numpy(), K)[:length] + D[e].item() * u[item, :, e].numpy()
            )
            gate = z[item, :, e].numpy()
            np.testing.assert_allclose(
                y[item, :, e].numpy(), out * gate / (1 + np.exp(-gate)), rtol=0, atol=1e-12
            )


def recurrence(tensors: list[Tensor], negative: bool) -> tuple[Tensor, Tensor]:
    """Channel by channel by the selective scan's plain loop, which shares B and C among them."""
    u, delta, A, B, C, D, z, state = tensors
    parts = []
    for e in range(u.shape[2]):
        one = slice(e, e + 1)
        shared = (t[e].expand(*u.shape[:2], -1) for t in (B, C))
        step = delta[one].expand(*u.shape[:2], 1)
        parts.append(selective_scan_reference(
            u[..., one], step, A[one], *shared, D[one], z[..., one], state[:, one], negative
        ))  # fmt: skip
    y, last = zip(*parts, strict=True)
    return torch.cat(y, -1), torch.cat(last, 1)


def results(found: tuple[Any, Any], leaves: list[Tensor]) -> list[Tensor]:
    y, last = found
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, last, *torch.autograd.grad((y * weights).sum() + last.square().sum(), leaves)]


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 70), negative=st.booleans())
def test_it_continues_as_the_recurrence_does(length: int, negative: bool) -> None:
    leaves = [x.requires_grad_() for x in inputs(length)]
    plain = results(recurrence(leaves, negative), leaves)
    ours = results(time_invariant_scan(*leaves, negative), leaves)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10 * (1 + other.abs().max().item()))


def test_gradcheck() -> None:
    leaves = [x.requires_grad_() for x in inputs(5)]
    assert torch.autograd.gradcheck(lambda *x: time_invariant_scan(*x, True), leaves)


def test_float32_keeps_its_digits_over_a_long_sequence() -> None:
    exact, _ = time_invariant_scan(*inputs(2000))
    rounded, _ = time_invariant_scan(*(x.float() for x in inputs(2000)))
    assert (rounded - exact).abs().max() < 1e-4 * exact.abs().max()


def fixed(**changes: Any) -> Mamba:
    torch.manual_seed(0)
    return randomise(small("auto", selective=False, **changes))  # type: ignore[return-value]


@pytest.mark.parametrize("negative", [False, True])
@torch.no_grad()
def test_pieces_and_steps_equal_the_whole(negative: bool) -> None:
    model, x = fixed(negative_eigenvalues=negative), torch.randn(2, 41, 16)
    whole, _ = model(x)
    state, parts = model.init_state(2, device=x.device, dtype=x.dtype), []
    for piece in x[:, :20].split([1, 13, 6], 1):
        out, state = model.prefill(piece, state)
        parts.append(out)
    for symbol in x[:, 20:].unbind(1):
        out, state = model.step(symbol, state)
        parts.append(out.unsqueeze(1))
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)
    held = sum(t.numel() * t.element_size() for layer in state for t in layer)
    assert held == model.state_bytes(2, 41, torch.float32)


@torch.no_grad()
def test_the_layer_is_linear_and_the_same_at_every_time() -> None:
    """What selection takes away: between convolution and gate the layer is a fixed filter."""
    mixer = fixed().layers[0].mixer
    assert isinstance(mixer, MambaMixer)
    u, z = torch.randn(2, 30, 24), torch.full((2, 30, 24), 50.0)

    def core(u: Tensor) -> Tensor:
        return mixer._scan(u, *mixer._select(u), z, None)[0]

    later = torch.cat([torch.zeros(2, 7, 24), u[:, :-7]], 1)
    torch.testing.assert_close(core(later)[:, 7:], core(u)[:, :-7], rtol=0, atol=1e-3)
    torch.testing.assert_close(core(2 * u), 2 * core(u), rtol=0, atol=1e-3)
    assert core(u).std() > 1


def test_initial_values() -> None:
    mixer = small("auto", d_inner=512, selective=False).layers[0].mixer
    delta = torch.nn.functional.softplus(mixer.dt_bias)
    assert 1e-4 <= delta.min() < 2e-3
    assert 0.05 < delta.max() <= 0.1 + 1e-6
    assert (mixer.B == 1).all()
    assert 0.9 < mixer.C.std() < 1.1
    names = {name for name, _ in mixer.named_parameters()}
    assert not any(name.startswith(("x_proj", "dt_proj")) for name in names)


def test_what_is_no_matrix_is_adams_and_does_not_decay() -> None:
    model = small("auto", selective=False)
    recipe = Recipe(lr=0.01, adam_ratio=0.5, weight_decay=0.5, cooldown=0.0, clip=1.0)
    muon, adam = Trainer(model, recipe, steps=1).optimizers
    own = [p for block in model.layers for p in block.mixer.parameters(recurse=False)]
    assert len(own) == 2 * 5
    undecayed = {id(p) for g in adam.param_groups if not g["weight_decay"] for p in g["params"]}
    assert {id(p) for p in own} <= undecayed
    assert muon.param_groups


def test_flops_equal_torchs_count_on_the_matrix_products() -> None:
    model, x = fixed(), torch.randn(2, 10, 16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    rest = 5 * 16 * 3 + 16 * 2 + 2 * (2 * 4 * 24 + 8 * 24)  # norms, sums; convolution, skip, gate
    products = model.flops(2, 10) - 20 * rest - 2 * fft_flops(2, 10, 24, 4)
    # K's sums over states are products for the counter; the transforms are none.
    sums = 2 * 2 * 12 * 24 * 4
    assert products == counter.get_total_flops() - sums
    assert model.flops(4, 64) < 4 * model.flops(1, 64)  # K is made once


def test_what_runs_it_is_said() -> None:
    assert fixed().kernel_used == "torch"
    assert all(getattr(m, "kernel_fallback", None) is None for m in fixed().modules())
    with pytest.raises(ValueError, match="kernel=numba: selective is false"):
        small("numba", selective=False)


def test_formats_have_no_place_for_it(tmp_path: Any) -> None:
    model = LanguageModel(backbone=fixed(), vocab_size=7, init="scaled")
    with pytest.raises(ValueError, match="selective=false is unknown to mamba_ssm"):
        Formats(family="mamba", default="state_spaces").write(model, tmp_path / "model")
