"""RWKV-4: the WKV operator against its definition, the model against transformers and `rwkv`."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import RwkvConfig, RwkvModel

from bench.training import Recipe, Trainer
from models.backbones.rwkv4 import RWKV4, LayerState
from models.backbones.wkv4 import EMPTY, wkv4_chunked, wkv4_reference
from models.checkpoints.formats import Formats
from models.objectives.autoregressive import LanguageModel
from tests.models.forms import Form, wkv4, wkv4_inputs
from tests.models.kernels import KERNELS, needs_numba
from tests.models.rwkv_models import CLOSE, made, tokens
from tests.models.test_rwkv_model import transformers_rwkv
from tests.rwkv_files import rwkv_file, rwkv_weights
from tests.zoo import randomise

CPU = torch.device("cpu")
SIZES = {"d_model": 32, "n_layers": 3, "d_ff": 56, "chunk": 8, "kernel": "torch"}
FILES = Formats(family="rwkv4", default="blinkdl")


@pytest.fixture(params=KERNELS)
def backbone(request: pytest.FixtureRequest) -> RWKV4:
    torch.manual_seed(0)
    return randomise(RWKV4(**SIZES | {"kernel": request.param})).eval()  # type: ignore[return-value]


def form(kernel: str) -> Form:
    return wkv4() if kernel == "numba" else partial(wkv4_chunked, chunk=7)


def empty(k: Tensor) -> Tensor:
    state = k.new_zeros(k.shape[0], 3, k.shape[2])
    state[:, 2] = EMPTY
    return state


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_the_definition(kernel: str, scale: float) -> None:
    """Section 3.1.2: a weighted mean of all values, with keys whose exponentials overflow too."""
    k, v, w, u, _ = wkv4_inputs(23, 3)
    k = scale * k
    out, _ = form(kernel)(k, v, w, u, empty(k))
    keys, values, decay, bonus = (t.double().numpy() for t in (k, v, w, u))
    for t in range(23):
        exponents = keys[:, : t + 1] + decay * (t - 1 - np.arange(t + 1))[:, None]
        exponents[:, t] = bonus + keys[:, t]
        weights = np.exp(exponents - exponents.max(1, keepdims=True))
        expected = (weights * values[:, : t + 1]).sum(1) / weights.sum(1)
        np.testing.assert_allclose(out[:, t].numpy(), expected, rtol=1e-4, atol=1e-5)


def results(function: Form, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    out, last = function(*leaves)
    g = torch.Generator().manual_seed(1)
    loss = sum((x * torch.randn(x.shape, generator=g, dtype=x.dtype)).sum() for x in (out, last))
    return [out, last, *torch.autograd.grad(loss, leaves)]


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 60), chunk=st.integers(1, 20), seen=st.booleans())
def test_chunks_equal_the_loop(length: int, chunk: int, seen: bool) -> None:
    inputs = wkv4_inputs(length, 5, torch.float64)
    if not seen:
        inputs[-1] = empty(inputs[0])
    loop = results(wkv4_reference, inputs)
    for ours, plain in zip(results(partial(wkv4_chunked, chunk=chunk), inputs), loop, strict=True):
        scale = max(1.0, plain.abs().max().item()) if plain.abs().max() < 1e30 else 1e24
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-10 * scale)


def loaded(folder: Path, kernel: str = "auto") -> LanguageModel:
    read = FILES.read(str(rwkv_file(folder / "rwkv.pth", "4")))
    backbone = RWKV4(**read.arguments, chunk=8, kernel=kernel)
    model = LanguageModel(backbone=backbone, vocab_size=read.vocab_size, init="backbone")
    read.load(model)
    return model.eval()


@pytest.mark.parametrize("kernel", KERNELS)
@torch.no_grad()
def test_logits_equal_those_of_transformers(kernel: str, tmp_path: Path) -> None:
    """In parallel, in pieces, and symbol by symbol."""
    ids = tokens(37)
    expected = transformers_rwkv(rwkv_weights("4"))(ids).logits
    model = loaded(tmp_path, kernel).double()
    # Its sums are of float32 whatever the model is.
    torch.testing.assert_close(model.next_logits(ids), expected, rtol=0, atol=5e-7)
    state = model.backbone.init_state(2, device=CPU, dtype=torch.float64)
    pieces = []
    for piece in ids[:, :20].split([1, 13, 6], 1):
        logits, state = model.prefill(piece, state)
        pieces.append(logits)
    for token in ids[:, 20:].unbind(1):
        one, state = model.step(token, state)
        pieces.append(one.unsqueeze(1))
    torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=0, atol=5e-7)
    assert expected.std() > 0.1


@torch.no_grad()
def test_logits_equal_those_of_the_rwkv_package(tmp_path: Path) -> None:
    """Which reads the end of a text, 0, before a text of its own."""
    theirs, ids = made(tmp_path, "4"), tokens()
    ours = loaded(tmp_path)(tokens=ids).logits
    torch.testing.assert_close(ours, theirs(tokens=ids).logits, **CLOSE)


def test_a_file_is_written_as_it_was_read(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    path = FILES.write(model, tmp_path / "again")
    before, after = (torch.load(file) for file in (tmp_path / "rwkv.pth", path))
    start = after.pop("start.weight")
    assert torch.equal(start, model.start.weight)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("version", "words"),
    [("5.2", "checkpoint of RWKV-5.2; model=rwkv4 needs"), ("7", "checkpoint of RWKV-7; model")],
)
def test_other_versions_are_refused(version: str, words: str, tmp_path: Path) -> None:
    path = rwkv_file(tmp_path / "rwkv.pth", version)
    with pytest.raises(ValueError, match=words):
        FILES.read(str(path))


def test_an_attention_of_another_width_is_refused(tmp_path: Path) -> None:
    weights = rwkv_weights("4", layers=1)
    for name in ("time_decay", "time_first", "receptance.weight", "key.weight", "value.weight"):
        weights[f"blocks.0.att.{name}"] = weights[f"blocks.0.att.{name}"][:16]
    weights["blocks.0.att.output.weight"] = weights["blocks.0.att.output.weight"][:, :16]
    torch.save({name: value.clone() for name, value in weights.items()}, tmp_path / "rwkv.pth")
    with pytest.raises(ValueError, match="its time mix is 16 wide; needed is its width, 32"):
        FILES.read(str(tmp_path / "rwkv.pth"))


@settings(max_examples=8, deadline=None)
@given(length=st.integers(2, 40), kernel=st.sampled_from(["torch", "auto"]))
def test_gradients_of_steps_equal_those_of_the_parallel_form(length: int, kernel: str) -> None:
    torch.manual_seed(length)
    model = randomise(RWKV4(**SIZES | {"kernel": kernel})).double()
    x = torch.randn(2, length, 32, dtype=torch.float64, requires_grad=True)
    state, hidden = model.init_state(2, device=CPU, dtype=torch.float64), []
    for t in range(length):
        h, state = model.step(x[:, t], state)
        hidden.append(h)
    fresh = model.init_state(2, device=CPU, dtype=torch.float64)
    parallel, end = model.prefill(x, fresh)
    torch.testing.assert_close(torch.stack(hidden, 1), parallel, rtol=0, atol=1e-9)
    for got, expected in zip(state, end, strict=True):
        torch.testing.assert_close(tuple(got), tuple(expected), rtol=0, atol=1e-9)
    weights = torch.randn(parallel.shape, dtype=torch.float64)
    wanted = [x, *model.parameters()]
    steps = torch.autograd.grad((torch.stack(hidden, 1) * weights).sum(), wanted)
    whole = torch.autograd.grad((parallel * weights).sum(), wanted)
    for one, other in zip(steps, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_state_bytes_are_those_of_the_state(backbone: RWKV4, dtype: torch.dtype) -> None:
    backbone.to(dtype)
    state = backbone.init_state(2, device=CPU, dtype=dtype)
    with torch.no_grad():
        _, state = backbone.prefill(torch.randn(2, 9, 32, dtype=dtype), state)
        _, state = backbone.step(torch.randn(2, 32, dtype=dtype), state)
    assert all(isinstance(layer, LayerState) for layer in state)
    actual = sum(t.numel() * t.element_size() for layer in state for t in layer)
    assert backbone.state_bytes(2, 10, dtype) == actual
    assert backbone.crop(state, 3) is state


def test_autocast_keeps_the_recurrence_in_float32(backbone: RWKV4) -> None:
    x = torch.randn(2, 37, 32)
    expected, _ = backbone(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, _ = backbone(x)
        state = backbone.init_state(2, device=CPU, dtype=torch.float32)
        _, state = backbone.prefill(x, state)
    assert all(layer.wkv.dtype == torch.float32 for layer in state)
    assert (got - expected).abs().max() < 0.3
    got.float().sum().backward()


def test_initial_values_are_the_authors() -> None:
    """Vectors by transformers, whose time_first alone is not BlinkDL's; the matrices by hers."""
    torch.manual_seed(0)
    ours = RWKV4(**SIZES)
    config = RwkvConfig(
        vocab_size=5, hidden_size=32, num_hidden_layers=3, intermediate_size=56, rescale_every=0
    )
    theirs = RwkvModel(config)
    for block, other in zip(ours.blocks, theirs.blocks, strict=True):
        torch.testing.assert_close(block.att.time_decay, other.attention.time_decay)
        for own, library in (("k", "key"), ("v", "value"), ("r", "receptance")):
            mix = getattr(other.attention, f"time_mix_{library}")
            torch.testing.assert_close(getattr(block.att, f"time_mix_{own}"), mix)
        for own, library in (("k", "key"), ("r", "receptance")):
            mix = getattr(other.feed_forward, f"time_mix_{library}")
            torch.testing.assert_close(getattr(block.ffn, f"time_mix_{own}"), mix)
        # RWKV-v4neo: log 0.3 and a zigzag of 0, 0.5, -0.5; zeros but for value and the ffn's key
        first = block.att.time_first.exp() / 0.3
        torch.testing.assert_close(first[:3].log(), torch.tensor([0.0, 0.5, -0.5]))
        zero = (block.att.key, block.att.receptance, block.att.output, block.ffn.value)
        assert not any(layer.weight.any() for layer in (*zero, block.ffn.receptance))
        value, key = block.att.value.weight, block.ffn.key.weight
        torch.testing.assert_close(value @ value.mT, torch.eye(32), rtol=0, atol=1e-5)
        torch.testing.assert_close(key.mT @ key, 56 / 32 * torch.eye(32), rtol=0, atol=1e-5)


def test_vectors_do_not_decay() -> None:
    """As in RWKV-v4neo, whose trainer decays tensors of two sides or more."""
    model = RWKV4(**SIZES)
    recipe = Recipe(lr=0.01, adam_ratio=0.5, weight_decay=0.5, cooldown=0.0, clip=1.0)
    decay = {
        id(p): group["weight_decay"]
        for optimizer in Trainer(model, recipe, steps=1).optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }
    kept = {name for name, p in model.named_parameters() if decay[id(p)] == 0}
    assert kept == {name for name, p in model.named_parameters() if p.squeeze().ndim < 2}
    assert any("time_decay" in name for name in kept)


def test_flops_count_the_products_exactly(backbone: RWKV4) -> None:
    x = torch.randn(2, 64, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(x)
    recurrence = 23 if backbone.kernel_used == "numba" else 7 * 8 + 17
    assert backbone.flops(2, 64) == counter.get_total_flops() + 2 * 64 * 3 * recurrence * 32
    assert backbone.flops(2, 1) == 2 * (counter.get_total_flops() // 128 + 3 * 23 * 32)


@needs_numba
def test_a_model_runs_the_kernel() -> None:
    assert RWKV4(**SIZES | {"kernel": "auto"}).kernel_used == "numba"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_ff": 0}, "d_ff is 0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"kernel": "cuda"}, "kernel is 'cuda'; allowed are auto, torch, numba"),
    ],
)
def test_bad_values_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RWKV4(**SIZES | change)  # type: ignore[arg-type]


def test_meta_construction() -> None:
    with torch.device("meta"):
        assert all(p.is_meta for p in RWKV4(**SIZES).parameters())
