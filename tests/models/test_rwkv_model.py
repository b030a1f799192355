"""RWKV-4 to 7 by the rwkv package, against what others or the papers' equations compute."""

import inspect
import itertools
import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
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
from models.checkpoints.rwkv_files import RWKVCheckpoint, RWKVFiles
from models.objectives.autoregressive import LanguageModel
from tests.rwkv_files import HEADS, SIZE, VERSIONS, WIDTH, Eagle, Weights, rwkv_file, rwkv_weights
from tests.zoo import CONFIGS

VOCAB = 41
# Of logits whose standard deviation is about one, in fp32 against float64.
CLOSE = {"atol": 5e-5, "rtol": 1e-5}


def built(checkpoint: RWKVCheckpoint) -> RWKVModel:
    model = RWKVModel(vocab_size=checkpoint.vocab_size, backbone=checkpoint.arguments)
    checkpoint.load(model)
    return model.eval()


def loaded(folder: Path, version: str, **options: int) -> RWKVModel:
    return built(RWKVFiles().read(str(rwkv_file(folder / "rwkv.pth", version, **options))))


MADE: dict[tuple[Any, ...], RWKVModel] = {}


def made(folder: Path, version: str, **options: int) -> RWKVModel:
    """`loaded`, once a kind of file: that compiles for a second. The file is written each time."""
    kind = (version, *options.items())
    if kind not in MADE:
        MADE[kind] = loaded(folder, version, **options)
    rwkv_file(folder / "rwkv.pth", version, **options)
    return MADE[kind]


def tokens(length: int = 29, rows: int = 2) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(2))


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
                backbone=RWKV7(**read.arguments, chunk=16, kernel="torch"), vocab_size=VOCAB,
                init="backbone",
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


def saved(folder: Path, weights: Weights) -> Path:
    path = folder / "rwkv.pth"
    torch.save(weights, path)
    return path


@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_the_version_does_not_hang_on_the_order_of_names(version: str, tmp_path: Path) -> None:
    """The package's own search for it would go wrong of names from A to Z, or of one layer."""
    weights = rwkv_weights(version, layers=1)
    read = RWKVFiles().read(str(saved(tmp_path, dict(sorted(weights.items())))))
    assert read.arguments == {
        "version": version, "d_model": WIDTH, "n_layers": 1, "d_ff": 56,
        "n_heads": None if version == "4" else HEADS,
    }  # fmt: skip
    logits, _ = built(read).read(tokens()[0].tolist(), None)
    if version[0] in "56":
        expected = Eagle(weights, version).logits(tokens()[0].tolist())
        torch.testing.assert_close(logits.double(), expected, **CLOSE)


@torch.no_grad()
def test_a_file_in_bfloat16_is_computed_in_float32(tmp_path: Path) -> None:
    short = {name: value.bfloat16() for name, value in rwkv_weights("5.2").items()}
    model = built(RWKVFiles().read(str(saved(tmp_path, short))))
    expected = Eagle(short, "5.2").logits(tokens()[0].tolist())
    logits, _ = model.read(tokens()[0].tolist(), None)
    assert logits.dtype == torch.float32
    # The package normalises the table in the dtype of the file, so that its rows are rounded.
    assert 1e-5 < (logits - expected).abs().max() < 0.05


@torch.no_grad()
def test_a_tuned_first_state_is_used(tmp_path: Path) -> None:
    weights = rwkv_weights("6.0")
    bare = built(RWKVFiles().read(str(saved(tmp_path, weights))))(tokens=tokens()).logits
    for layer in range(2):
        weights[f"blocks.{layer}.att.time_state"] = torch.randn(HEADS, SIZE, SIZE)
    tuned = built(RWKVFiles().read(str(saved(tmp_path, weights))))(tokens=tokens()).logits
    assert (tuned - bare).abs().max() > 0.1


@torch.no_grad()
def test_our_own_files_bring_their_start_symbol(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = RWKV7(d_model=WIDTH, n_layers=2, head_size=SIZE, d_ff=48, decay_rank=4, rate_rank=5,
                     value_rank=3, gate_rank=6, chunk=16, kernel="torch")  # fmt: skip
    ours = LanguageModel(backbone=backbone, vocab_size=VOCAB, init="backbone")
    for parameter in ours.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    Formats(family="rwkv", default="blinkdl").write(ours, tmp_path / "rwkv.pth")
    model = built(RWKVFiles().read(str(tmp_path)))  # the one file of a folder
    assert model.vocab_size == VOCAB
    torch.testing.assert_close(
        model(tokens=tokens()).logits, ours(tokens=tokens()).logits, atol=5e-5, rtol=1e-5
    )


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(rwkv_weights("6.0"), tmp_path / "rwkv.safetensors")
    there = built(RWKVFiles().read(str(tmp_path)))(tokens=tokens()).logits
    assert torch.equal(there, made(tmp_path, "6.0")(tokens=tokens()).logits)


def test_which_tokenizer(tmp_path: Path) -> None:
    def chosen(vocab: int) -> str | None:
        return RWKVFiles().read(str(rwkv_file(tmp_path / "a.pth", "4", vocab=vocab))).tokenizer

    assert chosen(65536) == "rwkv_vocab_v20230424"
    assert chosen(256) is chosen(50277) is None
    (tmp_path / "20B_tokenizer.json").write_text("{}")
    assert chosen(50277) == str(tmp_path / "20B_tokenizer.json")
    assert chosen(256) is None
    assert chosen(320) == str(tmp_path / "20B_tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert chosen(320) == str(tmp_path / "tokenizer.json")
    assert chosen(50277) == str(tmp_path / "20B_tokenizer.json")
    assert chosen(65536) == "rwkv_vocab_v20230424"


def test_it_stays_on_a_cpu_in_float32(tmp_path: Path) -> None:
    model = made(tmp_path, "4")
    assert isinstance(model, protocol.Placed)
    assert model.problem(torch.device("cpu"), torch.float32) is None
    said = "it runs here on a CPU in float32, not on cuda in bfloat16"
    assert model.problem(torch.device("cuda"), torch.bfloat16) == said
    assert model.to(torch.float32) is model
    with pytest.raises(ValueError, match="in float32, not on cpu in bfloat16"):
        model.to(torch.bfloat16)


def refused(path: Path, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        built(RWKVFiles().read(str(path)))
    assert len(str(caught.value).splitlines()) == 1


class Command:
    """Leaves a file at `mark` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    weights = rwkv_weights("6.0")
    path = saved(tmp_path, weights)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "cannot be read|holds other things")
    mark = tmp_path / "was-run"
    path.write_bytes(pickle.dumps(Command(mark)))
    refused(path, "holds other things than named tensors")
    torch.save({**weights, "more": Command(mark)}, path)
    refused(path, "holds other things than named tensors")
    assert not mark.exists()
    torch.save({"model": weights}, path)
    refused(path, "holds other things than named tensors")
    refused(
        saved(tmp_path, {"layer.weight": torch.ones(3)}), "is no checkpoint of RWKV-4, 5, 6 or 7"
    )

    key = "blocks.1.att.time_maa_w2"
    lacking = {name: value for name, value in weights.items() if name != key}
    refused(saved(tmp_path, lacking), rf"lacks {key}, which a checkpoint of RWKV-6\.0 has")
    refused(saved(tmp_path, {**weights, "blocks.0.att.extra": torch.ones(3)}),
            r"holds blocks\.0\.att\.extra, which no checkpoint of RWKV-6\.0 has")  # fmt: skip
    refused(saved(tmp_path, {**weights, key: weights[key][:, :2]}),
            r"w2 is of shape \(5, 2, 32\); needed are floats of shape \(5, 3, 32\)")  # fmt: skip
    refused(saved(tmp_path, {**weights, "emb.weight": weights["emb.weight"].int()}),
            r"emb\.weight is of torch\.int32; needed are floats")  # fmt: skip
    uneven = {
        name: torch.ones(3, 10) if name.endswith("faaaa") else value
        for name, value in weights.items()
    }
    headless = {name: value for name, value in weights.items() if name != "emb.weight"}
    refused(saved(tmp_path, headless), r"lacks emb\.weight, which a checkpoint of RWKV-6\.0 has")
    refused(saved(tmp_path, {**weights, START: torch.ones(1, WIDTH - 1)}),
            r"start\.weight is of shape \(1, 31\); needed are .* of shape \(1, 32\)")  # fmt: skip
    refused(saved(tmp_path, uneven), "3 heads do not make up its width of 32")
    (tmp_path / "b.pth").touch()
    refused(tmp_path, r"holds b\.pth, rwkv\.pth; give one of them, such as .*/b\.pth$")
    path.unlink()
    (tmp_path / "b.pth").unlink()
    refused(tmp_path, r"holds no \.pth and no \.safetensors file")
    refused(tmp_path / "none" / "of" / "them", "no file, no folder and no name")


ODD: dict[str, tuple[Any, str]] = {
    "a number for a name": ({5: torch.zeros(1)}, "holds other things than named tensors"),
    "no data": (
        {"emb.weight": torch.zeros(VOCAB, WIDTH, device="meta")}, "holds other things than named"
    ),
    "a sparse tensor": (
        {"emb.weight": torch.ones(VOCAB, WIDTH).to_sparse()}, "holds other things than named"
    ),
    "a far block": (
        {"blocks.1000000000.ln1.weight": torch.zeros(WIDTH)}, "block 1000000000 and no block 2"
    ),
    "a block without a number": ({"blocks.x.att": torch.zeros(2)}, r"holds (backbone\.)?blocks\.x"),
    "whole numbers": (
        {"blocks.0.att.w1": torch.ones(WIDTH, 4).int()}, r"w1 is of torch\.int32; needed are floats"
    ),
    "one side": ({"blocks.0.att.r_k": torch.ones(WIDTH)}, r"r_k is of shape \(32,\); needed"),
    "one side of a rank": ({"blocks.0.att.w1": torch.ones(WIDTH)}, r"w1 is of shape \(32,\)"),
    "no side": ({"blocks.0.ffn.key.weight": torch.tensor(1.0)}, r"is of shape \(\); needed"),
    "another width": ({"blocks.0.att.r_k": torch.ones(9, SIZE)}, r"9 heads|of shape \(9, 16\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_tensors_are_told_by_both_readers(name: str, tmp_path: Path) -> None:
    changes, words = ODD[name]
    path = saved(tmp_path, {**rwkv_weights("7"), **changes})
    refused(path, words)

    def ours() -> None:
        read = Formats(family="rwkv", default="blinkdl").read(str(path))
        backbone = RWKV7(**read.arguments, chunk=16, kernel="torch")
        read.load(LanguageModel(backbone=backbone, vocab_size=VOCAB, init="backbone"))

    with pytest.raises(ValueError, match=words) as caught:
        ours()
    assert len(str(caught.value).splitlines()) == 1


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.checkpoints.rwkv_files.installed", lambda: False)
    refused(rwkv_file(tmp_path / "rwkv.pth", "4"), "pip install rwkv")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, r"^the rwkv package cannot be imported \(ImportError: it has no rwkv\.model\); "),
        ("import nothing_like_it", r"cannot be imported \(ModuleNotFoundError: .*; pip install"),
        ("raise KeyError('a')", r"cannot be imported \(KeyError: 'a'\)"),
        ("def RWKV(*given, **options): raise RuntimeError('it is Sunday')",
         r"^the rwkv package \S+ fails on .*\.pth, which is a whole RWKV-4 \(it is Sunday\); pip "),
    ],
)  # fmt: skip
def test_a_broken_package_is_not_the_files_fault(
    code: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rwkv").mkdir()
    (tmp_path / "rwkv" / "__init__.py").touch()
    if code is not None:
        (tmp_path / "rwkv" / "model.py").write_text(code)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rwkv"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    rwkv_library.imported.cache_clear()
    refused(rwkv_file(tmp_path / "a.pth", "4"), words)
    rwkv_library.imported.cache_clear()
    sys.modules.pop("rwkv", None)


def test_it_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its checkpoint is the file it read"):
        RWKVFiles().write(made(tmp_path, "4"), tmp_path / "to")


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
