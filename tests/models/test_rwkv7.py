"""RWKV-7: the chunked recurrence against the loop, the model against the `rwkv` package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.backbones.rwkv7 import CHECKPOINT_NAMES, RWKV7, LayerState
from models.backbones.token_shift import token_shift
from models.backbones.wkv7 import MAX_CHUNK, wkv7_chunked, wkv7_reference
from models.objectives.autoregressive import LanguageModel
from tests.models.kernels import KERNELS

CPU = torch.device("cpu")
VOCAB = 23
SIZES = {
    "d_model": 32,
    "n_layers": 3,
    "head_size": 16,
    "d_ff": 80,
    "decay_rank": 4,
    "rate_rank": 5,
    "value_rank": 3,
    "gate_rank": 6,
    "negative_eigenvalues": False,
    "chunk": 16,
    "kernel": "torch",
}


def scattered(model: torch.nn.Module, seed: int = 0) -> None:
    """Move every parameter off its special initial value, so that no branch is silent."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype))


@pytest.fixture(params=KERNELS)
def backbone(request: pytest.FixtureRequest) -> RWKV7:
    torch.manual_seed(0)
    model = RWKV7(**(SIZES | {"kernel": request.param}))
    scattered(model)
    return model.eval()


def recurrence_inputs(
    length: int, *, head_size: int, dtype: torch.dtype, seed: int, decay_scale: float = 3.0
) -> list[Tensor]:
    """Inputs as the model makes them: decays in their range, removal keys of unit length."""
    g = torch.Generator().manual_seed(seed)
    shape = (2, length, 2, head_size)  # (B, T, H, N)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=g, dtype=dtype)

    r, k, v = (normal(*shape) for _ in range(3))
    log_w = -0.6065 * torch.sigmoid(decay_scale * normal(*shape))
    kk = F.normalize(normal(*shape), dim=-1)
    a = torch.rand(shape, generator=g, dtype=dtype)
    state = normal(2, 2, head_size, head_size)
    return [x.requires_grad_() for x in (r, log_w, k, v, -kk, kk * a, state)]


def outputs_and_gradients(inputs: list[Tensor], chunk: int | None) -> list[Tensor]:
    if chunk is None:
        out, state = wkv7_reference(*inputs)
    else:
        out, state = wkv7_chunked(*inputs, chunk=chunk)
    g = torch.Generator().manual_seed(1)
    # Weights of random sign: a plain sum would hide errors that cancel.
    loss = sum((x * torch.randn(x.shape, generator=g, dtype=x.dtype)).sum() for x in (out, state))
    return [out, state, *torch.autograd.grad(loss, inputs)]


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 150),
    chunk=st.sampled_from([1, 2, 7, 16, 32, MAX_CHUNK]),
    head_size=st.sampled_from([4, 12]),
    seed=st.integers(0, 2**20),
)
def test_chunks_equal_the_loop_in_float64(
    length: int, chunk: int, head_size: int, seed: int
) -> None:
    inputs = recurrence_inputs(length, head_size=head_size, dtype=torch.float64, seed=seed)
    loop = outputs_and_gradients(inputs, None)
    for expected, got in zip(loop, outputs_and_gradients(inputs, chunk), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


@settings(max_examples=15, deadline=None)
@given(
    length=st.integers(1, 200),
    chunk=st.sampled_from([16, 32, MAX_CHUNK]),
    seed=st.integers(0, 2**20),
)
def test_chunks_equal_the_loop_in_float32(length: int, chunk: int, seed: int) -> None:
    inputs = recurrence_inputs(length, head_size=16, dtype=torch.float32, seed=seed)
    loop, ours = outputs_and_gradients(inputs, None), outputs_and_gradients(inputs, chunk)
    for i, (expected, got) in enumerate(zip(loop, ours, strict=True)):
        tolerance = 1e-4 if i < 2 else 1e-3
        assert (got - expected).abs().max() <= tolerance * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("decay", [0.0, -0.6065])
def test_extreme_decays_and_repeated_keys_stay_exact_in_float32(decay: float) -> None:
    """One key throughout with a = 1, and decay all the way to its bound: the hardest solve."""
    r, _, k, v, _, _, state = (
        x.detach() for x in recurrence_inputs(128, head_size=16, dtype=torch.float32, seed=3)
    )
    kk = F.normalize(torch.ones_like(r), dim=-1)
    inputs = [
        x.requires_grad_() for x in (r, torch.full_like(r, decay), k, v, -kk, kk.clone(), state)
    ]
    loop, ours = outputs_and_gradients(inputs, None), outputs_and_gradients(inputs, MAX_CHUNK)
    for i, (expected, got) in enumerate(zip(loop, ours, strict=True)):
        tolerance = 1e-4 if i < 2 else 1e-3
        assert (got - expected).abs().max() <= tolerance * max(1.0, expected.abs().max().item())


def test_the_written_out_backward_is_the_derivative() -> None:
    inputs = recurrence_inputs(5, head_size=3, dtype=torch.float64, seed=2)
    assert torch.autograd.gradcheck(lambda *x: wkv7_chunked(*x, chunk=2), inputs)


@pytest.mark.parametrize("length", [1, 4])
def test_the_other_written_out_backwards_are_derivatives(length: int) -> None:
    g = torch.Generator().manual_seed(0)
    x, last = (torch.randn(2, *s, generator=g).double() for s in ((length, 3), (3,)))
    mus = [torch.randn(1, 1, 3, generator=g).double().requires_grad_() for _ in range(3)]
    x.requires_grad_()
    last.requires_grad_()
    assert torch.autograd.gradcheck(token_shift, (x, last, *mus))


ORACLE = """
import sys, torch
from rwkv.model import RWKV_x070
path, out = sys.argv[1:]
tokens = torch.load(out, weights_only=True).tolist()
model = RWKV_x070(path, "cpu fp32")
whole, _ = model.forward(tokens, None, full_output=True)
state, single = None, []
for token in tokens:
    logits, state = model.forward([token], state)
    single.append(logits)
torch.save({"whole": whole, "single": torch.stack(single)}, out)
"""


def test_logits_equal_those_of_the_rwkv_package(tmp_path: Path, backbone: RWKV7) -> None:
    model = LanguageModel(backbone=backbone, vocab_size=VOCAB, init="backbone").eval()
    scattered(model, seed=5)
    official = {}
    for name, weight in model.state_dict().items():
        for ours, theirs in CHECKPOINT_NAMES.items():
            if name.startswith(ours):
                official[theirs + name.removeprefix(ours)] = weight.clone()
    tokens = torch.randint(VOCAB, (1, 45), generator=torch.Generator().manual_seed(1))
    torch.save(official, tmp_path / "model.pth")
    torch.save(tokens[0], tmp_path / "out.pt")
    # The package reads its version from the environment at import and changes torch's settings.
    subprocess.run(
        [sys.executable, "-c", ORACLE, str(tmp_path / "model"), str(tmp_path / "out.pt")],
        env={**os.environ, "RWKV_V7_ON": "1"},
        check=True,
        capture_output=True,
    )
    expected = torch.load(tmp_path / "out.pt", weights_only=True)
    with torch.no_grad():
        whole = model.next_logits(tokens)[0]
        state = backbone.init_state(1, device=CPU, dtype=torch.float32)
        single = []
        for token in tokens[0]:
            hidden, state = backbone.step(model.embedding(token[None]), state)
            single.append(model.lm_head(hidden)[0])
    assert expected["whole"].std() > 0.1
    torch.testing.assert_close(whole, expected["whole"], rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.stack(single), expected["single"], rtol=0, atol=1e-4)


def test_official_names_and_shapes(backbone: RWKV7) -> None:
    D, H, N, R = 32, 2, 16, {"w": 4, "a": 5, "v": 3, "g": 6}
    block = {f"ln{i}.{p}": (D,) for i in (1, 2) for p in ("weight", "bias")}
    block |= {f"att.x_{n}": (1, 1, D) for n in "rwkvag"}
    block |= {f"att.{n}": (1, 1, D) for n in ("w0", "a0", "v0", "k_k", "k_a")}
    block |= {f"att.{n}1": (D, R[n]) for n in "wavg"} | {f"att.{n}2": (R[n], D) for n in "wavg"}
    block |= {f"att.{n}.weight": (D, D) for n in ("receptance", "key", "value", "output")}
    block |= {"att.r_k": (H, N), "att.ln_x.weight": (D,), "att.ln_x.bias": (D,)}
    block |= {"ffn.x_k": (1, 1, D), "ffn.key.weight": (80, D), "ffn.value.weight": (D, 80)}
    expected = {f"blocks.{i}.{n}": s for i in range(3) for n, s in block.items()}
    expected |= {f"{n}.{p}": (D,) for n in ("blocks.0.ln0", "ln_out") for p in ("weight", "bias")}
    # A whole official checkpoint loads strictly, block 0's unused tensors included.
    g = torch.Generator().manual_seed(0)
    backbone.load_state_dict({n: torch.randn(s, generator=g) for n, s in expected.items()})
    for i in range(3):
        expected.pop(f"blocks.0.att.v{i}")
    assert {n: tuple(p.shape) for n, p in backbone.state_dict().items()} == expected


def test_a_later_input_changes_no_earlier_output(backbone: RWKV7) -> None:
    x = torch.randn(2, 40, 32)
    changed = x.clone()
    changed[:, 21:] += torch.randn(2, 19, 32)
    with torch.no_grad():
        before, after = backbone(x)[0], backbone(changed)[0]
    torch.testing.assert_close(after[:, :21], before[:, :21], rtol=0, atol=1e-6)
    assert (after[:, 21:] - before[:, 21:]).abs().amax(-1).min() > 1e-3


@settings(max_examples=8, deadline=None)
@given(length=st.integers(1, 70), grad=st.booleans())
def test_steps_equal_the_parallel_form(length: int, grad: bool) -> None:
    torch.manual_seed(length)
    backbone = RWKV7(**SIZES)
    scattered(backbone)
    x = torch.randn(2, length, 32, requires_grad=grad)

    def stepwise() -> tuple[Tensor, list[LayerState]]:
        state = backbone.init_state(2, device=CPU, dtype=torch.float32)
        hidden = []
        for t in range(length):
            h, state = backbone.step(x[:, t], state)
            hidden.append(h)
        return torch.stack(hidden, dim=1), state  # (B, T, D)

    with torch.set_grad_enabled(grad):
        one_by_one, state = stepwise()
        fresh = backbone.init_state(2, device=CPU, dtype=torch.float32)
        parallel, end = backbone.prefill(x, fresh)
        torch.testing.assert_close(one_by_one, parallel, rtol=0, atol=1e-4)
        for got, expected in zip(state, end, strict=True):
            torch.testing.assert_close(tuple(got), tuple(expected), rtol=0, atol=1e-4)
    if grad:
        weights = torch.randn(parallel.shape)
        wanted = [x, *(p for n, p in backbone.named_parameters())]
        steps = torch.autograd.grad((one_by_one * weights).sum(), wanted)
        whole = torch.autograd.grad((parallel * weights).sum(), wanted)
        for got, expected in zip(steps, whole, strict=True):
            assert (got - expected).norm() <= 1e-3 * max(1.0, expected.norm().item())


def test_pieces_equal_the_whole_and_one_equals_many(backbone: RWKV7) -> None:
    x = torch.randn(3, 61, 32)
    with torch.no_grad():
        whole, end = backbone.prefill(x, backbone.init_state(3, device=CPU, dtype=x.dtype))
        state = backbone.init_state(3, device=CPU, dtype=x.dtype)
        pieces = []
        for piece in x.split([1, 17, 32, 2, 9], dim=1):
            hidden, state = backbone.prefill(piece, state)
            pieces.append(hidden)
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-4)
        for got, expected in zip(state, end, strict=True):
            torch.testing.assert_close(tuple(got), tuple(expected), rtol=0, atol=1e-4)
        for row in range(3):
            alone, _ = backbone(x[row : row + 1])
            torch.testing.assert_close(alone[0], whole[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_state_bytes_are_those_of_the_state(backbone: RWKV7, dtype: torch.dtype) -> None:
    backbone.to(dtype)
    state = backbone.init_state(2, device=CPU, dtype=dtype)
    with torch.no_grad():
        _, state = backbone.prefill(torch.randn(2, 9, 32, dtype=dtype), state)
        _, state = backbone.step(torch.randn(2, 32, dtype=dtype), state)
    actual = sum(t.numel() * t.element_size() for layer in state for t in layer)
    assert backbone.state_bytes(2, 10, dtype) == actual
    assert backbone.crop(state, 3) is state


def test_steps_follow_the_weights(backbone: RWKV7) -> None:
    """Packed weights are renewed after an update in place, a load, a replacement and a cast."""
    x = torch.randn(1, 32)

    def step(dtype: torch.dtype = torch.float32) -> Tensor:
        with torch.no_grad():
            state = backbone.init_state(1, device=CPU, dtype=dtype)
            got, _ = backbone.step(x.to(dtype), state)
            expected, _ = backbone(x.to(dtype)[:, None])
        torch.testing.assert_close(got, expected[:, 0], rtol=0, atol=1e-5)
        return got

    before = step()
    with torch.no_grad():
        backbone.blocks[1].att.key.weight.add_(1)
    assert not torch.equal(step(), before)
    other = {n: p + 0.1 * torch.randn_like(p) for n, p in backbone.state_dict().items()}
    after_update = step()
    backbone.load_state_dict(other, assign=True)
    assert not torch.equal(step(), after_update)
    backbone.double()
    assert step(torch.float64).dtype == torch.float64


def test_autocast_keeps_the_recurrence_in_float32(backbone: RWKV7) -> None:
    x = torch.randn(2, 37, 32)
    expected, _ = backbone(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, _ = backbone(x)
        state = backbone.init_state(2, device=CPU, dtype=torch.float32)
        _, state = backbone.prefill(x, state)
        backbone.step(x[:, 0], state)
    assert all(layer.wkv.dtype == torch.float32 for layer in state)
    assert (got - expected).abs().max() < 0.3
    got.float().sum().backward()


def test_initial_values_are_the_authors() -> None:
    """Output projections at zero leave the residual stream alone; decays lie in their range."""
    torch.manual_seed(0)
    backbone = RWKV7(**SIZES)
    x = torch.randn(1, 5, 32)
    hidden, losses = backbone(x)
    expected = backbone.ln_out(backbone.blocks[0].ln0(x))
    torch.testing.assert_close(hidden, expected)
    assert losses == {}
    for block in backbone.blocks:
        w0 = block.att.w0.flatten()
        assert w0[:16].mean() < w0[16:].mean()  # later heads forget faster
        gram = block.att.w2 @ block.att.w2.mT
        torch.testing.assert_close(gram, 0.01 * torch.eye(4), rtol=0, atol=1e-6)


def test_flops_count_the_projections_exactly() -> None:
    """Against torch's own counter, which knows every product of the forward pass but the solve."""
    from torch.utils.flop_counter import FlopCounterMode

    backbone = RWKV7(**SIZES)
    x = torch.randn(2, 64, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(x)
    solve = 2 * 3 * 2 * 4 * (16**3 // 3)  # B, layers, heads, chunks
    # The triangular sum of the decays is a product for the counter, an addition for us.
    decays = 2 * 3 * 2 * 4 * 2 * 16 * 16 * 16
    assert backbone.flops(2, 64) == counter.get_total_flops() + solve - decays


def test_flops_of_one_symbol_are_those_of_the_recurrence(backbone: RWKV7) -> None:
    """Against torch's counter, which does not see the decay nor the two outer products."""
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.randn(2, 1, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(x)
    unseen = 2 * 3 * 2 * 5 * 16 * 16  # B, layers, heads
    assert backbone.flops(2, 1) == counter.get_total_flops() + unseen


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_size": 24}, "head_size is 24; it has to divide the width of all heads, 32"),
        ({"d_ff": 0}, "d_ff is 0"),
        ({"chunk": 65}, "chunk"),
    ],
)
def test_bad_sizes_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RWKV7(**(SIZES | change))


def test_meta_construction() -> None:
    with torch.device("meta"):
        assert all(p.is_meta for p in RWKV7(**SIZES).parameters())
