"""The fused kernels against the plain recurrences, as operators of torch, and at their limits."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.backbones.selective_scan import selective_scan_reference
from models.backbones.ssd import ssd_reference
from models.backbones.wkv4 import wkv4_reference
from models.backbones.wkv7 import wkv7_reference
from models.kernels.available import MAX_HEAD
from tests.models.forms import (
    Form,
    conv,
    conv_inputs,
    conv_reference,
    scan,
    scan_inputs,
    ssd,
    ssd_inputs,
    wkv,
    wkv4,
    wkv4_inputs,
    wkv_inputs,
)
from tests.models.kernels import needs_numba


def values_and_gradients(form: Form, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    out, last = form(*leaves)
    # Weights of random sign, the same in either type: errors must not cancel.
    normal = partial(torch.randn, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = sum((x * normal(x.shape).to(x.dtype)).sum() for x in (out, last))
    return [out, last, *torch.autograd.grad(loss, leaves)]


def assert_equals(form: Form, reference: Form, inputs: list[Tensor], tolerance: float) -> None:
    """Values and gradients are those of the reference in float64."""
    expected = values_and_gradients(reference, [x.double() for x in inputs])
    for ours, theirs in zip(values_and_gradients(form, inputs), expected, strict=True):
        assert ours.isfinite().all()
        atol = tolerance * max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=atol)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@needs_numba
@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 70),
    channels=st.sampled_from([1, 16, 130, 150]),
    states=st.integers(1, 17),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    negative=st.booleans(),
)
def test_the_scan_equals_the_recurrence(
    length: int, channels: int, states: int, dtype: torch.dtype, negative: bool
) -> None:
    inputs = scan_inputs(length, channels, states, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    forms = (partial(form, negative=negative) for form in (scan(), selective_scan_reference))
    assert_equals(*forms, inputs, tolerance)


@needs_numba
@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 70),
    head_size=st.sampled_from([1, 2, 7, 16, 33, MAX_HEAD]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_wkv7_equals_the_recurrence(length: int, head_size: int, dtype: torch.dtype) -> None:
    inputs = wkv_inputs(length, head_size, dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    assert_equals(wkv(), wkv7_reference, inputs, tolerance)


@needs_numba
@settings(max_examples=25, deadline=None)
@given(
    length=st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 128, 150])),
    headdim=st.sampled_from([1, 6, 64, 100]),
    states=st.sampled_from([1, 2, 7, 16]),
    groups=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    negative=st.booleans(),
)
def test_ssd_equals_the_recurrence(
    length: int, headdim: int, states: int, groups: int, dtype: torch.dtype, negative: bool
) -> None:
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    inputs = ssd_inputs(length, headdim, states, groups, dtype)
    forms = (partial(form, negative=negative) for form in (ssd(), ssd_reference))
    assert_equals(*forms, inputs, tolerance)


@needs_numba
@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 100),
    channels=st.sampled_from([1, 5, 16, 64, 65, 150]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    threads=st.integers(1, 2),
)
def test_wkv4_equals_the_recurrence(
    length: int, channels: int, dtype: torch.dtype, threads: int
) -> None:
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_equals(wkv4(), wkv4_reference, wkv4_inputs(length, channels, dtype), tolerance)
    finally:
        torch.set_num_threads(before)


@needs_numba
@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 40),
    channels=st.sampled_from([1, 16, 300]),
    width=st.integers(2, 5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_convolution_equals_that_of_torch(
    length: int, channels: int, width: int, dtype: torch.dtype
) -> None:
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert_equals(conv(), conv_reference, conv_inputs(length, channels, width, dtype), tolerance)


@needs_numba
def test_gradcheck() -> None:
    inputs = [x.requires_grad_() for x in conv_inputs(5, 3, 4, torch.float64)]
    assert torch.autograd.gradcheck(lambda *x: conv()(*x)[0], inputs)
    for negative in (False, True):
        inputs = [x.requires_grad_() for x in scan_inputs(5, 3, 2, torch.float64)]
        assert torch.autograd.gradcheck(partial(scan(), negative=negative), inputs)
        inputs = [x.requires_grad_() for x in ssd_inputs(5, 3, 2, 2, torch.float64)]
        assert torch.autograd.gradcheck(partial(ssd(), negative=negative), inputs)
    *inputs, state = wkv4_inputs(5, 3, torch.float64)
    p = state[:, 2:]

    def unscaled(*given: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and the sums themselves, which do not depend on the scale p that they have."""
        out, last = wkv4()(*given[:-1], torch.cat([given[-1], p], 1))
        return out, last[:, :2] * torch.exp(last[:, 2:].detach())

    given_ = [x.requires_grad_() for x in (*inputs, state[:, :2].clone())]
    assert torch.autograd.gradcheck(unscaled, given_)
    inputs = [x.requires_grad_() for x in wkv_inputs(5, 3, torch.float64)]
    assert torch.autograd.gradcheck(wkv(), inputs)


def with_steps(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Those of `ssd`, with step sizes of their own for the inputs."""
    return [inputs[0], torch.rand_like(inputs[1]), *inputs[1:]]


@needs_numba
def test_steps_of_their_own_multiply_the_inputs() -> None:
    """As inputs that were multiplied before, over the decay's steps; also where these are zero."""
    x, steps, delta, *rest = with_steps(ssd_inputs(70, 5, 3, dtype=torch.float64))
    plain, fused = ssd_reference, ssd()
    rest[3] = torch.zeros_like(rest[3])  # D's share of x is another matter
    given = [t.requires_grad_() for t in (x, steps, delta)]
    ours = fused(x, delta, *rest, steps)
    theirs = plain(x * (steps / delta).unsqueeze(-1), delta, *rest)
    pairs = zip(ours, theirs, strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)
    found, expected = (torch.autograd.grad(y[0].sin().sum(), given) for y in (ours, theirs))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    slope = torch.autograd.grad(fused(x, 0 * delta, *rest, steps)[0].sum(), delta)[0]
    assert not slope.any()  # the product's own factor
    zero = torch.zeros_like(delta).requires_grad_()
    (slope,) = torch.autograd.grad(fused(x, zero, *rest, steps)[0].sum(), zero)
    (near,) = torch.autograd.grad(fused(x, zero + 1e-12, *rest, steps)[0].sum(), zero)
    torch.testing.assert_close(slope, near, rtol=1e-6, atol=1e-6)


@needs_numba
@pytest.mark.parametrize("save", [True, False])
def test_torch_finds_no_fault_with_the_operators(save: bool) -> None:
    """torch.library.opcheck: schema, fake tensors, autograd registration, tracing."""
    scan(), wkv(), ssd(), wkv4()
    tests = ["test_schema", "test_faketensor"]
    if save:
        tests += ["test_autograd_registration", "test_aot_dispatch_dynamic"]
    for inputs, operator, options in (
        (scan_inputs(20, 3, 2), torch.ops.archbench.selective_scan.default, (False,)),
        (scan_inputs(20, 3, 2), torch.ops.archbench.selective_scan.default, (True,)),
        (wkv_inputs(20, 4), torch.ops.archbench.wkv7.default, ()),
        (with_steps(ssd_inputs(20, 5, 4, 2)), torch.ops.archbench.ssd.default, (True,)),
        (wkv4_inputs(20, 4), torch.ops.archbench.wkv4.default, ()),
    ):
        given = [x.requires_grad_(save) for x in inputs]
        torch.library.opcheck(operator, (*given, *options, save), test_utils=tests)
    conv()
    x, weight, bias, window = (x.requires_grad_(save) for x in conv_inputs(5, 3, 4))
    taps = weight[:, 0].T.contiguous().detach().requires_grad_(save)
    operator = torch.ops.archbench.causal_conv.default
    torch.library.opcheck(operator, (x, taps, bias, window), test_utils=tests)


@needs_numba
def test_any_strides_are_taken() -> None:
    def strided(x: Tensor) -> Tensor:
        if x.ndim < 2:
            return torch.stack([x, x], dim=-1)[..., 0]
        return x.transpose(0, -1).contiguous().transpose(0, -1)

    for form, inputs in (
        (scan(), scan_inputs(21, 20, 3)), (wkv(), wkv_inputs(21, 5)),
        (conv(), conv_inputs(9, 5, 3)), (ssd(), ssd_inputs(21, 5, 3, 2)),
        (wkv4(), wkv4_inputs(21, 5)),
    ):  # fmt: skip
        changed = [strided(x) for x in inputs]
        assert not any(x.is_contiguous() for x in changed)
        plain = values_and_gradients(form, inputs)
        for ours, expected in zip(values_and_gradients(form, changed), plain, strict=True):
            assert torch.equal(ours, expected)


@needs_numba
@pytest.mark.usefixtures("two_threads")
def test_threads_change_nothing() -> None:
    import numba

    for form, inputs in (
        (scan(), scan_inputs(40, 300, 16)), (wkv(), wkv_inputs(40, 16)),
        (conv(), conv_inputs(20, 300, 4)), (ssd(), ssd_inputs(40, 70, 16, 2)),
        (wkv4(), wkv4_inputs(40, 300)),
    ):  # fmt: skip
        torch.set_num_threads(2)
        here = values_and_gradients(form, inputs)
        assert numba.get_num_threads() == min(2, numba.config.NUMBA_NUM_THREADS)
        torch.set_num_threads(1)
        alone = values_and_gradients(form, inputs)
        assert numba.get_num_threads() == 1
        assert all(torch.equal(a, b) for a, b in zip(here, alone, strict=True))


@needs_numba
def test_extreme_steps_stay_exact() -> None:
    inputs = scan_inputs(40, 300, 16)
    inputs[1][:, ::7] *= 400  # exp(delta A) underflows
    inputs[6][:, ::5] *= 100  # the gate saturates
    assert_equals(scan(), selective_scan_reference, inputs, 1e-5)
    inputs = ssd_inputs(40, 70, 16)
    inputs[1][:, ::7] *= 400
    assert_equals(ssd(), ssd_reference, inputs, 1e-5)
    for decay in (0.0, -0.6065):
        inputs = wkv_inputs(200, 16)
        inputs[1].fill_(decay)
        assert_equals(wkv(), wkv7_reference, inputs, 1e-3)


@needs_numba
def test_what_fades_becomes_zero_before_it_is_denormal() -> None:
    """A gradient at the last step alone fades over hundreds of steps: never through denormals."""
    r, log_w, k, v, a, b, state = wkv_inputs(400, 8)
    k.zero_(), a.zero_(), b.zero_()
    log_w.fill_(-0.6)
    _, last = wkv()(r, log_w, k, v, a, b, state)
    exact = state * torch.exp(log_w.sum(1))[:, :, None]
    assert exact.abs().max() < 1e-38
    assert last.eq(0).all()
    x, delta, A, B, C, D, h = ssd_inputs(200, 8, 4)
    x.zero_()
    delta.fill_(1.0)
    _, last = ssd()(x, delta, A, B, C, D, h)
    assert last.eq(0).all()
    u, delta, A, B, C, D, z, h = scan_inputs(100, 8, 4)
    u.zero_()
    delta.fill_(1.0)
    _, last = scan()(u, delta, A, B, C, D, z, h)
    assert last.eq(0).all()


def sums(form: Form, *given: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs of RWKV-4, and numerator and denominator of its last state."""
    out, last = form(*given)
    return out, last[:, :2]


@needs_numba
def test_what_is_not_a_number_stays_so() -> None:
    """A model that broke must show it: a state that forgot its NaN would be scored as if it ran."""
    forms = (
        (scan(), selective_scan_reference, scan_inputs(40, 5, 3), (0, 1, 7)),
        (ssd(), ssd_reference, ssd_inputs(40, 6, 5), (0, 1, 6)),
        (wkv(), wkv7_reference, wkv_inputs(40, 8), (1, 3, 6)),
        # Of the state the sums alone: their scale is of no use where they are no numbers.
        (partial(sums, wkv4()), partial(sums, wkv4_reference), wkv4_inputs(40, 8), (0, 1, 2)),
    )
    for fused, reference, inputs, places in forms:
        for place in places:  # inputs of the first step, a decay among them; the state before it
            spoilt = [x.clone() for x in inputs]
            spoilt[place].view(-1)[0] = float("nan")
            for ours, theirs in zip(fused(*spoilt), reference(*spoilt), strict=True):
                assert torch.equal(ours.isnan(), theirs.isnan()), (fused, place)
                assert ours.isnan().any()


@needs_numba
def test_nothing_is_kept_without_a_gradient() -> None:
    scan(), wkv(), ssd(), wkv4()
    assert torch.ops.archbench.ssd(*with_steps(ssd_inputs(40, 5, 3)), False, False)[2].numel() == 0
    inputs = scan_inputs(40, 20, 3)
    assert torch.ops.archbench.selective_scan(*inputs, False, False)[2].numel() == 0
    assert torch.ops.archbench.wkv4(*wkv4_inputs(40, 4), False)[2].numel() == 0
    assert torch.ops.archbench.wkv7(*wkv_inputs(40, 4), False)[2].numel() == 0
    leaf = inputs[0].requires_grad_()
    with pytest.raises(RuntimeError, match="save=True"):
        torch.ops.archbench.selective_scan(leaf, *inputs[1:], False, False)
