"""RWKV-4 to 7 by the rwkv package, against what others or the papers' equations compute."""

import inspect
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from transformers import RwkvConfig, RwkvForCausalLM

from bench import protocol
from bench.meters.allocator import nbytes
from bench.meters.flops import count as count_flops
from bench.meters.memory import tensors_in
from bench.parameters import count
from models.backbones.rwkv7 import RWKV7
from models.backends import rwkv_library
from models.backends.rwkv_model import RWKVModel
from models.checkpoints.checkpoint import START
from models.checkpoints.formats import Formats
from models.objectives.autoregressive import LanguageModel
from tests.models.rwkv_models import CLOSE, VOCAB, loaded, made, tokens
from tests.rwkv_files import HEADS, SIZE, VERSIONS, WIDTH, Eagle, Weights, rwkv_weights
from tests.zoo import CONFIGS


def transformers_rwkv(weights: Weights) -> RwkvForCausalLM:
    """The library's RWKV-4 with `weights` under its own names."""
    config = RwkvConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=2, rescale_every=0, use_cache=False,
        intermediate_size=weights["blocks.0.ffn.key.weight"].shape[0],
    )  # fmt: skip
    model = RwkvForCausalLM(config).double().eval()
    names = {
        "emb.": "embeddings.", ".ln0.": ".pre_ln.", ".att.": ".attention.",
        ".ffn.": ".feed_forward.",
        "time_mix_k": "time_mix_key", "time_mix_v": "time_mix_value",
        "time_mix_r": "time_mix_receptance",
    }  # fmt: skip
    found = {}
    for name, value in weights.items():
        theirs = name if name == "head.weight" else f"rwkv.{name}"
        for ours, library in names.items():
            theirs = theirs.replace(ours, library)
        found[theirs] = value.double()
    model.load_state_dict(found)
    return model


class Reference:
    """Logits after each of a sequence's symbols, from the empty state, in float64."""

    def __init__(self, version: str, folder: Path) -> None:
        weights = rwkv_weights(version)
        if version == "4":
            theirs = transformers_rwkv(weights)
            self.logits = lambda ids: theirs(torch.tensor([list(ids)])).logits[0]
        elif version == "7":
            read = Formats(family="rwkv", default="blinkdl").read(str(folder / "rwkv.pth"))
            ours = LanguageModel(
                backbone=RWKV7(
                    **read.arguments, negative_eigenvalues=False, chunk=16, kernel="torch"
                ),
                vocab_size=VOCAB, init="backbone",
            )  # fmt: skip
            read.load(ours)
            ours = ours.double()
            self.logits = lambda ids: ours.next_logits(torch.tensor([list(ids)]))[0]
        else:
            self.logits = Eagle(weights, version).logits

    def greedy(self, ids: Sequence[int], length: int) -> list[int]:
        written = list(ids)
        for _ in range(length):
            written.append(int(self.logits(written)[-1].argmax()))
        return written[len(ids) :]


@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_logits_and_continuation_are_those_of_the_equations(version: str, tmp_path: Path) -> None:
    model = made(tmp_path, version)
    assert model.version == version
    reference = Reference(version, tmp_path)
    x = tokens()
    for row in x.tolist():
        expected = reference.logits(row)
        assert expected.std() > 0.5
        logits, _ = model.read(row, None)
        torch.testing.assert_close(logits.double(), expected, **CLOSE)
        # A text begins after the symbol that ends the one before it, 0 in BlinkDL's tokenizers.
        expected = reference.logits([0, *row])
        ahead = model(tokens=torch.tensor([row])).logits[0]
        torch.testing.assert_close(ahead.double(), expected[:-1], **CLOSE)
        logits, state = model.prefill(torch.tensor([row]))
        torch.testing.assert_close(logits[0].double(), expected[1:], **CLOSE)
        written = [logits[:, -1].argmax(-1)]
        while len(written) < 12:
            one, state = model.step(written[-1], state)
            written.append(one.argmax(-1))
        assert torch.cat(written).tolist() == reference.greedy([0, *row], 12)


@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_pieces_and_steps_continue_the_state(version: str, tmp_path: Path) -> None:
    model = made(tmp_path, version)
    assert isinstance(model, protocol.Recurrent)
    x = tokens(33)
    whole, last = model.prefill(x)
    pieces, state = [], None
    for piece in x.split([1, 17, 1, 14], 1):
        logits, state = model.prefill(piece, state)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=2e-5, rtol=1e-5)
    for mine, theirs in zip(tensors_in(state), tensors_in(last), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-5)
    logits, state = model.prefill(x[:, :1])
    ahead = [logits[:, 0]]
    for t in range(1, 33):
        one, state = model.step(x[:, t], state)
        ahead.append(one)
    torch.testing.assert_close(torch.stack(ahead, 1), whole, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_a_state_goes_in_and_stays(version: str, tmp_path: Path) -> None:
    """Of versions 4 to 6 the package writes into the list of a state's tensors."""
    model = made(tmp_path, version)
    x = tokens(9)
    _, state = model.prefill(x)
    kept = [part.clone() for part in tensors_in(state)]
    for read in (lambda: model.prefill(x, state), lambda: model.step(x[:, 0], state)):
        first, after = read()
        again, after_again = read()
        assert torch.equal(first, again)
        for mine, theirs in zip(tensors_in(after), tensors_in(after_again), strict=True):
            assert torch.equal(mine, theirs)
    for mine, theirs in zip(tensors_in(state), kept, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("version", ["5.2", "7"])
@torch.no_grad()
def test_the_users_environment_comes_back(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have the package build CUDA kernels as it is imported and for a model of 5.2."""
    rwkv_library.imported.cache_clear()
    given = {"RWKV_CUDA_ON": "1", "RWKV_V7_ON": "0"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    model = loaded(tmp_path, version)
    assert {name: os.environ[name] for name in given} == given
    model.prefill(tokens(5))
    monkeypatch.delenv("RWKV_CUDA_ON")
    monkeypatch.delenv("RWKV_V7_ON")
    rwkv_library.imported.cache_clear()
    loaded(tmp_path, version).prefill(tokens(5))
    assert "RWKV_V7_ON" not in os.environ


@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_what_it_costs(version: str, tmp_path: Path) -> None:
    model = made(tmp_path, version)
    vectors, matrices = (5, 0) if version == "4" else (2, 1)
    state_bytes = 2 * 4 * (vectors * WIDTH + matrices * HEADS * SIZE * SIZE)
    assert model.state_bytes(1, 5, torch.float32) == state_bytes
    x = tokens(40)
    _, state = model.prefill(x)
    assert nbytes(tensors_in(state)) == model.state_bytes(2, 40, torch.float32) == 2 * state_bytes
    weights = rwkv_weights(version)
    numbers = count(model)
    # The package makes ln0 part of the table; of 7 it keeps ln0 and drops what nobody reads.
    gone = ("v0", "v1", "v2") if version == "7" else ("ln0.weight", "ln0.bias")
    unused = sum(v.numel() for n, v in weights.items() if n.startswith("blocks.0.")
                 and n.endswith(gone))  # fmt: skip
    assert numbers.total == numbers.active == sum(v.numel() for v in weights.values()) - unused
    assert numbers.total - numbers.matched == 2 * VOCAB * WIDTH
    assert not any(p.requires_grad for p in model.parameters())
    # No formula is stated; the counter sees at least each matrix once a symbol.
    assert model.flops(1, 10) is None
    matrices_used = sum(v.numel() for n, v in weights.items() if v.ndim == 2 and n != "emb.weight")
    seen = count_flops(lambda: model.step(x[:, 0], state)).flops / (2 * 2)
    assert seen >= 0.95 * matrices_used


@torch.no_grad()
def test_likelihood_of_texts_sums_to_one(tmp_path: Path) -> None:
    model = made(tmp_path, "6.0", vocab=3)
    texts = torch.tensor(list(itertools.product(range(3), repeat=3)))
    found = model.log_prob(texts)
    assert not found.bound
    assert found.nats.exp().sum().item() == pytest.approx(1, abs=1e-5)
    counted = torch.tensor([[True, True, False]]).expand(27, 3)
    shorter = model.log_prob(texts[:, :2]).nats
    torch.testing.assert_close(model.log_prob(texts, counted).nats, shorter)
    one = torch.cat([model.log_prob(text[None]).nats for text in texts])
    torch.testing.assert_close(one, found.nats)


def test_it_stays_on_a_cpu_in_float32(tmp_path: Path) -> None:
    model = made(tmp_path, "4")
    assert isinstance(model, protocol.Placed)
    assert model.problem(torch.device("cpu"), torch.float32) is None
    said = "it runs here on a CPU in float32, not on cuda in bfloat16"
    assert model.problem(torch.device("cuda"), torch.bfloat16) == said
    assert model.to(torch.float32) is model
    with pytest.raises(ValueError, match="in float32, not on cpu in bfloat16"):
        model.to(torch.bfloat16)


def test_its_yaml_names_every_argument() -> None:
    tree = yaml.safe_load((CONFIGS / "model" / "rwkv_package.yaml").read_text())
    given = {key for key in tree["kinds"]["language"]["model"] if key != "_target_"}
    assert given == set(inspect.signature(RWKVModel).parameters)
    assert START == "start.weight"
    assert tree["kernel"] == RWKVModel.kernel_used
    none = dict.fromkeys(tree["backbone"])
    assert none == tree["backbone"]
    with pytest.raises(ValueError, match=r"give model\.pretrained=FILE"):
        RWKVModel(vocab_size=256, backbone=none)
    told = RWKVModel(vocab_size=256, backbone=none | {"version": "7"})
    assert "give model.pretrained=FILE" in str(told.problem(torch.device("cpu"), torch.float32))
