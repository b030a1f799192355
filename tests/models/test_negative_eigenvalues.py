"""Eigenvalues in [-1, 1] (arXiv:2411.12537) of Mamba, Mamba-2, RWKV-7 and Gated DeltaNet."""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.models.qwen3_next import modeling_qwen3_next as official

from bench.constants import TOLERANCE
from bench.sizes import count_on_meta, fit
from models.backbones.gated_delta import (
    GatedDeltaMixer,
    gated_delta_chunked,
    gated_delta_fused,
    gated_delta_reference,
)
from models.backbones.rwkv7 import RWKV7
from models.backbones.rwkv7_time_mix import TimeMix
from models.backbones.selective_scan import (
    recurrence_chunked,
    selective_scan_reference,
    selective_scan_torch,
)
from models.backbones.ssd import ssd_chunked, ssd_reference
from models.backbones.wkv7 import wkv7_chunked, wkv7_reference
from models.checkpoints.formats import Formats
from models.objectives.autoregressive import LanguageModel
from tests.models.forms import scan, scan_inputs, ssd, ssd_inputs
from tests.models.kernels import KERNELS, needs_numba
from tests.models.test_gated_delta import inputs as delta_inputs
from tests.models.test_gated_delta import small as small_delta
from tests.models.test_mamba import small as small_mamba
from tests.models.test_mamba2 import small as small_mamba2
from tests.models.test_rwkv7 import SIZES as RWKV
from tests.zoo import SIZES, instantiate, randomise, resolved

Form = Callable[..., tuple[Tensor, Tensor]]
CPU = torch.device("cpu")
torch_scan = partial(selective_scan_torch, recurrence=recurrence_chunked)
numba = partial(pytest.param, marks=needs_numba)


def parities(length: int) -> tuple[Tensor, Tensor]:
    """Bits (T), and 1 or -1 as those so far are even or odd in number (T)."""
    bits = torch.randint(2, (length,), generator=torch.Generator().manual_seed(length)).double()
    return bits, 1 - 2 * (bits.cumsum(0) % 2)


@pytest.mark.parametrize("form", [selective_scan_reference, torch_scan, numba("fused")])
def test_a_scan_counts_parity(form: Any) -> None:
    """A bit makes the step so long that the decay is -1, none makes it 0 and the decay 1."""
    form = scan() if form == "fused" else form
    bits, expected = parities(70)
    zero = torch.zeros(1, 70, 3, dtype=torch.float64)
    one = torch.ones(1, 70, 1, dtype=torch.float64)
    delta, gate = zero + 1000 * bits[:, None], zero + 100
    state = torch.ones(1, 3, 1, dtype=torch.float64)
    y, last = form(
        zero, delta, -torch.ones(3, 1).double(), one, one, torch.zeros(3).double(), gate, state,
        negative=True,
    )  # fmt: skip
    torch.testing.assert_close(y, 100 * expected[None, :, None].expand(1, 70, 3))
    torch.testing.assert_close(last.flatten(), expected[-1:].expand(3))


@pytest.mark.parametrize("form", [ssd_reference, partial(ssd_chunked, chunk=16), numba("fused")])
def test_state_space_duality_counts_parity(form: Any) -> None:
    form = ssd() if form == "fused" else form
    bits, expected = parities(70)
    x, one = torch.zeros(1, 70, 2, 3).double(), torch.ones(1, 70, 1, 1).double()
    delta = 1000 * bits[None, :, None].expand(1, 70, 2)
    head, state = torch.ones(2).double(), torch.ones(1, 2, 3, 1).double()
    y, last = form(x, delta, -head, one, one, head, state, negative=True)
    torch.testing.assert_close(y, expected[None, :, None, None].expand(1, 70, 2, 3))
    torch.testing.assert_close(last.flatten(), expected[-1:].expand(6))


def test_the_scan_is_that_of_the_paper() -> None:
    """Its listing: 2 exp(delta A) - 1 in the place of exp(delta A)."""
    inputs = scan_inputs(19, 3, 4, torch.float64)
    y, last = selective_scan_reference(*inputs, negative=True)
    u, delta, A, B, C, D, z, h = (t.numpy() for t in inputs)
    for t in range(19):
        transition = 2 * np.exp(delta[:, t, :, None] * A) - 1
        h = transition * h + (delta[:, t] * u[:, t])[..., None] * B[:, t, None]
        out = (h * C[:, t, None]).sum(-1) + D * u[:, t]
        np.testing.assert_allclose(y[:, t].numpy(), out * z[:, t] / (1 + np.exp(-z[:, t])))
    np.testing.assert_allclose(last.numpy(), h)


def results(form: Form, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    y, last = form(*leaves)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, last, *torch.autograd.grad((y * weights).sum() + last.square().sum(), leaves)]


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 50), size=st.integers(1, 5))
def test_torchs_scan_equals_the_recurrence(length: int, size: int) -> None:
    inputs = scan_inputs(length, 3, size, torch.float64)
    plain = results(partial(selective_scan_reference, negative=True), inputs)
    for ours, theirs in zip(
        results(partial(torch_scan, negative=True), inputs), plain, strict=True
    ):
        torch.testing.assert_close(
            ours, theirs, rtol=0, atol=1e-10 * (1 + theirs.abs().max().item())
        )


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 50), chunk=st.integers(1, 20), groups=st.sampled_from([1, 2, 4]))
def test_chunks_of_either_sign_equal_the_recurrence(length: int, chunk: int, groups: int) -> None:
    inputs = ssd_inputs(length, 3, 5, groups, torch.float64)
    inputs[1] *= 5  # decays on both sides of zero
    plain = results(partial(ssd_reference, negative=True), inputs)
    chunked = results(partial(ssd_chunked, chunk=chunk, negative=True), inputs)
    for ours, theirs in zip(chunked, plain, strict=True):
        torch.testing.assert_close(
            ours, theirs, rtol=0, atol=1e-9 * (1 + theirs.abs().max().item())
        )


def test_a_decay_of_zero_is_no_exception() -> None:
    """exp(delta A) = 1/2: what has no logarithm, and what the product's gradient divides by."""
    inputs = ssd_inputs(12, 2, 3, dtype=torch.float64)
    inputs[2] = -torch.log(torch.tensor(2.0)).double().expand(4).clone()
    inputs[1][:, ::3] = 1.0
    plain = results(partial(ssd_reference, negative=True), inputs)
    chunked = results(partial(ssd_chunked, chunk=8, negative=True), inputs)
    for ours, theirs in zip(chunked, plain, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, theirs)


def test_gradcheck() -> None:
    inputs = [x.requires_grad_() for x in scan_inputs(5, 2, 3, torch.float64)]
    assert torch.autograd.gradcheck(partial(torch_scan, negative=True), inputs)
    inputs = [x.requires_grad_() for x in ssd_inputs(5, 2, 3, dtype=torch.float64)]
    assert torch.autograd.gradcheck(partial(ssd_chunked, chunk=2, negative=True), inputs)


def rwkv(kernel: str, **changes: Any) -> RWKV7:
    torch.manual_seed(0)
    model = RWKV7(**RWKV | {"kernel": kernel, "negative_eigenvalues": True} | changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


BACKBONES: dict[str, Callable[[str], Any]] = {
    "mamba": partial(small_mamba, negative_eigenvalues=True),
    "mamba2": partial(small_mamba2, negative_eigenvalues=True),
    "gated_delta": partial(small_delta, negative_eigenvalues=True),
    "rwkv": rwkv,
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("batch", [1, 2])  # of one the step may be a kernel's
@torch.no_grad()
def test_pieces_and_steps_equal_the_whole(name: str, kernel: str, batch: int) -> None:
    torch.manual_seed(0)
    model = randomise(BACKBONES[name](kernel))
    for own, parameter in model.named_parameters():
        if own.endswith(("dt_proj.bias", "dt_bias")):
            parameter += 4  # steps so long that decays are on both sides of zero
        elif "x_proj" in own:
            parameter *= 8  # the state is then more than a skip's shadow
    width = 32 if name == "rwkv" else 16
    x = 2 * torch.randn(batch, 41, width)
    plain = BACKBONES[name](kernel)
    plain.load_state_dict(model.state_dict())
    for module in plain.modules():
        if hasattr(module, "negative_eigenvalues"):
            module.negative_eigenvalues, module.reach = False, 0.0
    mixer = name == "gated_delta"
    whole, usual = (m(x, None)[0] if mixer else m(x)[0] for m in (model, plain))
    assert (whole - usual).abs().max() > 1e-2 * usual.abs().max()
    state, parts = model.init_state(batch, device=CPU, dtype=x.dtype), []
    for piece in x[:, :20].split([1, 13, 6], 1):
        out, state = model(piece, state) if mixer else model.prefill(piece, state)
        parts.append(out)
    for symbol in x[:, 20:].unbind(1):
        out, state = model.step(symbol, state)
        parts.append(out.unsqueeze(1))
    scale = whole.abs().max().item()
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=2e-5 * max(1, scale))


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**20), size=st.integers(1, 12), sharp=st.sampled_from([1.0, 30.0]))
def test_transitions_of_rwkv_have_eigenvalues_in_minus_one_to_one(
    seed: int, size: int, sharp: float
) -> None:
    """Whatever decays, keys and rates are; with twice the rate they leave it."""
    g = np.random.default_rng(seed)
    sigmoid = 1 / (1 + np.exp(-sharp * g.standard_normal((2, size))))
    w, a = np.exp(-np.exp(-0.5) * sigmoid[0]), sigmoid[1]
    key = g.standard_normal(size)
    key /= np.linalg.norm(key)

    def eigenvalues(rate: Any) -> Any:
        return np.linalg.eigvals(np.diag(w) - np.outer(key, rate * key))

    ours = eigenvalues((1 + w) * a)
    np.testing.assert_allclose(ours.imag, 0, atol=1e-7)
    assert ours.real.min() >= -1 - 1e-9
    assert ours.real.max() <= 1 + 1e-9
    assert eigenvalues(a).real.min() >= np.exp(-np.exp(-0.5)) - 1 - 1e-9  # without the option
    for lowest in (eigenvalues(1 + w), eigenvalues(np.full(size, 2.0))):
        assert lowest.real.min() <= -1 + 1e-9  # the bound is reached, and passed with 2 a


def test_that_rate_reaches_the_recurrence() -> None:
    """Of the removal alone: the replacement key keeps the rate between 0 and 1."""
    plain, signed = (
        rwkv("torch", negative_eigenvalues=negative).blocks[0].att for negative in (False, True)
    )
    x, state = torch.randn(2, 9, 32), torch.zeros(2, 2, 16, 16)
    seen = []
    for mix in (plain, signed):
        with mock.patch.object(TimeMix, "_recur", autospec=True, side_effect=TimeMix._recur) as spy:
            mix(x, torch.zeros(2, 32), None, state)
        _, _, log_w, k, _, kk, a, _ = spy.call_args.args
        seen.append((log_w, k, kk, a))
    *same, a = seen[0]
    *others, stretched = seen[1]
    assert all(torch.equal(one, other) for one, other in zip(same, others, strict=True))
    torch.testing.assert_close(stretched, a * (1 + same[0].exp()))


@pytest.mark.parametrize("form", [wkv7_reference, partial(wkv7_chunked, chunk=8)])
def test_the_rule_of_rwkv_counts_parity(form: Any) -> None:
    """With w = 1 and a = 1 a bit reflects the state at the key; without one a = 0 keeps it."""
    bits, expected = parities(40)
    shape = (1, 40, 1, 2)
    zero, key = torch.zeros(shape).double(), torch.zeros(shape).double()
    key[..., 0] = 1
    b = 2 * key * bits[None, :, None, None]
    y, _ = form(key, zero, zero, zero, -key, b, torch.ones(1, 1, 2, 2).double())
    torch.testing.assert_close(y[0, :, 0, 0], expected)


@pytest.mark.parametrize("form", ["reference", "chunked", numba("fused")])
@torch.no_grad()
def test_the_delta_rule_with_beta_to_two_is_that_of_transformers(form: str) -> None:
    """And that of flash-linear-attention, whose naive form is the same loop."""
    q, k, v, g, beta, state = delta_inputs(23, V=5, dtype=torch.float32)
    rule: Any = {
        "reference": gated_delta_reference, "fused": gated_delta_fused,
        "chunked": partial(gated_delta_chunked, chunk=8),
    }[form]  # fmt: skip
    beta = 2 * beta
    assert beta.max() > 1.8
    o, last = rule(q * q.shape[-1] ** -0.5, k, v, g, beta, state)
    expected, after = official.torch_recurrent_gated_delta_rule(
        q, k, v, g, beta, initial_state=state.mT, output_final_state=True
    )
    torch.testing.assert_close(o, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(last.mT, after, rtol=1e-4, atol=1e-4)


def test_beta_is_twice_as_large() -> None:
    signed, plain = (small_delta(negative_eigenvalues=negative) for negative in (True, False))
    assert isinstance(signed, GatedDeltaMixer)
    x = torch.randn(2, 9, 16)
    found = []
    for mixer in (signed, plain):
        qkv, _, b, a = mixer._project(x)
        found.append(mixer._select(qkv, b, a, torch.float32))
    *others, beta = found[0]
    *same, half = found[1]
    assert torch.equal(beta, 2 * half)
    assert all(torch.equal(one, other) for one, other in zip(others, same, strict=True))


OPTIONS = [
    ("mamba", {"negative_eigenvalues": True}),
    ("mamba", {"selective": False}),
    ("mamba", {"selective": False, "negative_eigenvalues": True}),
    ("mamba2", {"negative_eigenvalues": True}),
    ("rwkv", {"negative_eigenvalues": True}),
]


@pytest.mark.parametrize("size", ["micro", "nano"])
@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_they_are_brought_to_size(name: str, options: dict[str, bool], size: str) -> None:
    tree = resolved(name, "language", size)
    for place in (tree["backbone"], tree["kinds"]["language"]["model"]["backbone"]):
        place.update(options)
    build = partial(instantiate, _convert_="all")
    solved = fit(tree, "language", size, SIZES[size], build)
    assert options.items() <= solved["backbone"].items()
    numbers = count_on_meta(lambda: build(solved))
    assert abs(numbers.matched - SIZES[size]) <= TOLERANCE * SIZES[size]


FORMATS = [
    ("mamba", "state_spaces", small_mamba),
    ("mamba2", "huggingface", partial(small_mamba2, nheads=8, headdim=4)),
    ("rwkv", "blinkdl", rwkv),
]


@pytest.mark.parametrize(("family", "form", "build"), FORMATS)
def test_formats_have_no_place_for_it(
    family: str, form: str, build: Callable[..., nn.Module], tmp_path: Any
) -> None:
    model = LanguageModel(backbone=build("torch", negative_eigenvalues=True), vocab_size=7,
                          init="scaled")  # fmt: skip
    with pytest.raises(ValueError, match="negative_eigenvalues=true is unknown to"):
        Formats(family=family, default=form).write(model, tmp_path / "model")
