"""Mamba-3: its forms against one another, and the mixer against a complex state space model."""

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.mamba3 import (
    Mamba3,
    Mamba3Mixer,
    trapezoid_parallel,
    trapezoid_reference,
)
from tests.models.kernels import KERNELS, needs_numba
from tests.zoo import randomise


def inputs(length: int, rank: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x, log_decay, delta, lam, B, C of `trapezoid_reference`, and the three before them."""
    generator = torch.Generator().manual_seed(length)
    normal = partial(torch.randn, generator=generator, dtype=dtype)
    uniform = partial(torch.rand, generator=generator, dtype=dtype)
    tensors = [
        normal(2, length, rank, 4, 3),
        -3 * uniform(2, length, 4) - 1e-3,
        uniform(2, length, 4),
        uniform(2, length, 4),
        normal(2, length, rank, 4, 6),
        normal(2, length, rank, 4, 6),
        normal(2, rank, 4, 6),
        normal(2, rank, 4, 3),
        normal(2, 4, 3, 6),
    ]
    return [t.requires_grad_() for t in tensors]


def results(function: Any, tensors: list[Tensor], with_state: bool) -> list[Tensor]:
    """Outputs, last state, and the gradients of what was given."""
    leaves = tensors if with_state else tensors[:6]
    y, last = function(*tensors[:6], tuple(tensors[6:]) if with_state else None)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, last, *torch.autograd.grad((y * weights).sum() + last.square().sum(), leaves)]


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 40),
    chunk=st.integers(1, 20),
    rank=st.integers(1, 3),
    with_state=st.booleans(),
)
def test_chunked_form_equals_the_recurrence(
    length: int, chunk: int, rank: int, with_state: bool
) -> None:
    tensors = inputs(length, rank)
    chunked = results(partial(trapezoid_parallel, chunk=chunk), tensors, with_state)
    plain = results(trapezoid_reference, tensors, with_state)
    for ours, expected in zip(chunked, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@needs_numba
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("length", [1, 16, 45])
def test_the_kernel_of_mamba2_computes_the_recurrence(length: int, with_state: bool) -> None:
    tensors = inputs(length, 1)
    fused = results(partial(trapezoid_parallel, chunk=None), tensors, with_state)
    plain = results(trapezoid_reference, tensors, with_state)
    for ours, expected in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@needs_numba
def test_a_step_of_no_length_is_no_division_by_zero() -> None:
    tensors = inputs(20, 1, torch.float32)
    with torch.no_grad():
        for t in tensors[1:3]:
            t[:, 5:9] = 0
    fused = results(partial(trapezoid_parallel, chunk=None), tensors, True)
    plain = results(trapezoid_reference, tensors, True)
    for ours, expected in zip(fused, plain, strict=True):
        torch.testing.assert_close(
            ours, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
        )


@needs_numba
@pytest.mark.parametrize("size", [1e-2, 1e-6, 1e-12])
def test_gradients_of_small_decays_keep_their_digits(size: float) -> None:
    """In fp32, against the recurrence in fp64: a decay of almost nothing is what long memory is."""
    wide = inputs(70, 1)
    with torch.no_grad():
        wide[1].mul_(size)
    short = [t.detach().float().requires_grad_() for t in wide]
    fused = results(partial(trapezoid_parallel, chunk=None), short, True)
    plain = results(trapezoid_reference, wide, True)
    for ours, expected in zip(fused, plain, strict=True):
        near = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(ours.double(), expected, rtol=0, atol=near)


@pytest.mark.parametrize("rank", [1, 2])
def test_gradcheck_of_the_chunked_form(rank: int) -> None:
    def flat(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return trapezoid_parallel(*tensors[:6], tensors[6:], chunk=3)  # type: ignore[call-arg,arg-type,misc]

    torch.autograd.gradcheck(flat, inputs(5, rank))


def small(kernel: str = "torch", **changes: Any) -> Mamba3:
    torch.manual_seed(0)
    options = {
        "d_model": 16,
        "n_layers": 2,
        "nheads": 4,
        "headdim": 6,
        "d_state": 8,
        "ngroups": 1,
        "rope_fraction": 0.5,
        "mimo_rank": 1,
        "chunk_size": 8,
        "norm_eps": 1e-5,
        "kernel": kernel,
        "residual_init": "scaled",
        **changes,
    }
    return randomise(Mamba3(**options))  # type: ignore[return-value]


def mixer_of(model: Mamba3) -> Mamba3Mixer:
    return next(iter(model._blocks())).mixer  # type: ignore[return-value]


def complex_model(mixer: Mamba3Mixer, x: Tensor) -> Tensor:
    """Mamba-3 as the paper defines it: a state of complex numbers that A turns and shrinks.

    Every pair of symbols t >= j by itself, for one sequence (T, D). A pair of channels of B and C
    is one complex number, what does not turn is one with an angle of zero.
    """
    H, P, N, R, G = mixer.nheads, mixer.headdim, mixer.d_state, mixer.mimo_rank, mixer.ngroups
    S, T = mixer.num_rope_angles, len(x)
    E, GN = H * P, R * G * N
    sizes = [E, E, GN, GN, H, H, H, S]
    z, v, B, C, dd_dt, dd_A, trap, angle = (x @ mixer.in_proj.weight.T).split(sizes, -1)
    z, v = z.view(T, H, P), v.view(T, H, P)
    delta = torch.log1p(torch.exp(dd_dt + mixer.dt_bias))
    A = -torch.where(dd_A >= 0, 1 + dd_A, 1 / (1 - dd_A))
    lam = 1 / (1 + torch.exp(-trap))

    def spins(t: Tensor, norm: Tensor, bias: Tensor, r: int, h: int) -> Tensor:
        """(T, N / 2) complex numbers of one head and rank."""
        t = t.view(T, R, G, N)[:, r, h // (H // G)]
        t = t / (t.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm + bias[h, r]
        if R > 1:
            return torch.complex(t[:, : N // 2], t[:, N // 2 :])
        return torch.complex(t[:, 0::2], t[:, 1::2])

    out = torch.zeros(T, H, P, dtype=x.dtype)
    for h in range(H):
        turn = F.pad(math.pi * torch.tanh(angle) * delta[:, h, None], (0, N // 2 - S))  # (T, N / 2)
        b, c = (
            [spins(t, norm.weight, bias, r, h) for r in range(R)]
            for t, norm, bias in (
                (B, mixer.B_norm, mixer.B_bias),
                (C, mixer.C_norm, mixer.C_bias),
            )
        )
        ones = torch.ones(H, 1, P, dtype=x.dtype)
        onto, gates, back = (
            (mixer.mimo_x, mixer.mimo_z, mixer.mimo_o) if R > 1 else (ones, ones, ones)
        )
        for r in range(R):
            y = mixer.D[h] * v[:, h] * onto[h, r]
            for t in range(T):
                for j in range(t + 1):
                    # What A_{j+1} to A_t leave of the symbol j
                    shrunk = torch.exp((delta[j + 1 : t + 1, h] * A[j + 1 : t + 1, h]).sum())
                    left = torch.polar(shrunk, turn[j + 1 : t + 1].sum(0))
                    weight = lam[j, h] * delta[j, h]
                    if j < t:
                        weight = weight + (1 - lam[j + 1, h]) * delta[j + 1, h]
                    for s in range(R):
                        score = (c[r][t] * b[s][j].conj() * left).real.sum()
                        y[t] = y[t] + weight * score * v[j, h] * onto[h, s]
            gate = z[:, h] * gates[h, r]
            out[:, h] += y * gate / (1 + torch.exp(-gate)) * back[h, r]
    return out.flatten(1) @ mixer.out_proj.weight.T


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "changes",
    [{}, {"ngroups": 2}, {"rope_fraction": 1.0}, {"d_state": 6}, {"mimo_rank": 2, "ngroups": 2}],
    ids=str,
)
@torch.no_grad()
def test_outputs_are_those_of_a_complex_state_space_model(kernel: str, changes: dict) -> None:
    if kernel == "numba" and "mimo_rank" in changes:
        with pytest.raises(ValueError, match="mimo_rank"):  # one input and output a state
            small(kernel, **changes)
        return
    mixer, x = mixer_of(small(kernel, **changes).double()), torch.randn(1, 13, 16).double()
    for parameter in mixer.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.3)
    found, _ = mixer(x, None)
    assert found.std() > 0.1
    torch.testing.assert_close(found[0], complex_model(mixer, x[0]), rtol=1e-9, atol=1e-9)


def test_parameters_have_the_official_names_and_shapes() -> None:
    """Those of `mamba_ssm.modules.mamba3.Mamba3`, from its constructor."""
    D, H, P, N, G, S = 16, 4, 6, 8, 2, 2
    for R in (1, 3):
        mixer = mixer_of(small(mimo_rank=R, ngroups=G))
        shapes = {
            "in_proj.weight": (2 * H * P + 2 * N * G * R + 3 * H + S, D),
            "dt_bias": (H,),
            "B_bias": (H, R, N),
            "C_bias": (H, R, N),
            "B_norm.weight": (N,),
            "C_norm.weight": (N,),
            "D": (H,),
            "out_proj.weight": (D, H * P),
        }
        if R > 1:
            shapes |= {f"mimo_{name}": (H, R, P) for name in "xzo"}
        assert {name: tuple(p.shape) for name, p in mixer.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("kernel", "rank"), [("torch", 1), ("torch", 3), pytest.param("numba", 1, marks=needs_numba)]
)
@settings(max_examples=15, deadline=None)
@given(pieces=st.lists(st.integers(1, 20), min_size=1, max_size=4))
@torch.no_grad()
def test_parallel_pieces_and_steps_agree(kernel: str, rank: int, pieces: list[int]) -> None:
    model = small(kernel, mimo_rank=rank, ngroups=2).double()
    x = torch.randn(2, sum(pieces), 16, dtype=torch.float64)
    whole, losses = model(x)
    assert losses == {}
    state = model.init_state(2, device=x.device, dtype=x.dtype)
    parts = []
    for piece in x.split(pieces, 1):
        hidden, state = model.prefill(piece, state)
        parts.append(hidden)
    stepped, other = [], model.init_state(2, device=x.device, dtype=x.dtype)
    for t in range(x.shape[1]):
        hidden, other = model.step(x[:, t], other)
        stepped.append(hidden)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    torch.testing.assert_close(torch.stack(stepped, 1), whole)
    for a, b in zip(state, other, strict=True):
        for name in ("B", "x", "ssm"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name))
        torch.testing.assert_close(a.theta.cos(), b.theta.cos())  # 0 is as good as 2 pi
    held = sum(t.nbytes for layer in state for t in layer)
    assert held == model.state_bytes(2, x.shape[1], x.dtype)


@pytest.mark.parametrize("rank", [1, 2])
def test_gradients_of_the_model_equal_those_of_stepping(rank: int) -> None:
    model = small(mimo_rank=rank).double()
    x, weights = torch.randn(2, 2, 21, 16, dtype=torch.float64)
    parameters = list(model.parameters())
    fast = torch.autograd.grad((model(x)[0] * weights).sum(), parameters)
    state, out = model.init_state(2, device=x.device, dtype=x.dtype), []
    for t in range(21):
        hidden, state = model.step(x[:, t], state)
        out.append(hidden)
    slow = torch.autograd.grad((torch.stack(out, 1) * weights).sum(), parameters)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("rank", [1, 3])
def test_flops_equal_torchs_count_on_the_matrix_products(rank: int) -> None:
    model, x = small(mimo_rank=rank), torch.randn(2, 24, 16)  # whole chunks
    H, E, N, R, S = 4, 24, 8, rank, 2
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    # The recurrence over chunks and everything by element are no matrix products.
    rest = R * (4 * 8 * H + 2 * E * N // 8) + 8 * R * N + 2 * R * H * N + 12 * R * H * S
    rest += H * (S + 15) + (12 if R > 1 else 6) * R * E + (2 * (H * N + E) if R == 1 else 0)
    norms = 5 * 16 * 3 + 16 * 2
    assert model.flops(2, 24) - 48 * (norms + 2 * rest) == counter.get_total_flops()


def test_initialisation_is_the_official_one() -> None:
    with torch.no_grad():
        mixer = mixer_of(
            Mamba3(
                d_model=8, n_layers=1, nheads=512, headdim=2, d_state=4, ngroups=1, mimo_rank=2,
                rope_fraction=0.5, chunk_size=8, norm_eps=1e-5, kernel="torch",
                residual_init="zero",
            )
        )  # fmt: skip
        delta = F.softplus(mixer.dt_bias)
    assert 1e-4 <= delta.min() < 2e-3
    assert 0.05 < delta.max() <= 0.1 + 1e-6
    assert all((p == 1).all() for p in (mixer.D, mixer.B_bias, mixer.C_bias, mixer.mimo_z))
    assert all((p == 0.5).all() for p in (mixer.mimo_x, mixer.mimo_o))


@pytest.mark.parametrize("rank", [1, 2])
@torch.no_grad()
def test_half_precision_keeps_the_state_wide(rank: int) -> None:
    model, x = small(mimo_rank=rank), torch.randn(2, 20, 16)
    exact = model(x)[0]
    half = model.bfloat16()
    state = half.init_state(2, device=x.device, dtype=torch.bfloat16)
    out, state = half.prefill(x.bfloat16(), state)
    stepped, state = half.step(x[:, 0].bfloat16(), state)
    assert state[0].ssm.dtype == state[0].theta.dtype == torch.float32
    assert out.dtype == stepped.dtype == state[0].x.dtype == torch.bfloat16
    assert (out - exact).abs().max() < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"mimo_rank": 0}, "mimo_rank is 0"),
        ({"ngroups": 3}, "multiple of ngroups, 3"),
        ({"d_state": 7}, "d_state is 7; it has to be even"),
        ({"rope_fraction": 0.25}, "rope_fraction is 0.25; allowed are 0.5 and 1.0"),
        ({"residual_init": "one"}, "residual_init is 'one'"),
        pytest.param({"kernel": "numba", "mimo_rank": 2}, "mimo_rank is 2", marks=needs_numba),
    ],
)
def test_bad_values_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)
