"""Files of RWKV-4 to 7: what is read from them, and what is refused in one sentence."""

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from models.backbones.rwkv7 import RWKV7
from models.backends import rwkv_library
from models.checkpoints.checkpoint import START
from models.checkpoints.formats import Formats
from models.checkpoints.rwkv_files import RWKVFiles
from models.objectives.autoregressive import LanguageModel
from tests.models.checkpoints import Command
from tests.models.rwkv_models import CLOSE, VOCAB, built, made, saved, tokens
from tests.rwkv_files import HEADS, SIZE, VERSIONS, WIDTH, Eagle, rwkv_file, rwkv_weights


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
                     value_rank=3, gate_rank=6, negative_eigenvalues=False, chunk=16,
                     kernel="torch")  # fmt: skip
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


def refused(path: Path, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        built(RWKVFiles().read(str(path)))
    assert len(str(caught.value).splitlines()) == 1


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
        backbone = RWKV7(**read.arguments, negative_eigenvalues=False, chunk=16, kernel="torch")
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
