"""Symbols of a tokenizer instead of bytes, and bits per byte all the same."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bench.tasks.tokenizer import WORLD, characters, load_tokenizer
from models.checkpoints.formats import Formats
from models.objectives.autoregressive import LanguageModel
from tests.models.checkpoints import built
from tests.small import TEXT, llama, tokenizer
from tests.tasks.fakes import text_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llama")
    llama(made)
    tokenizer(made)
    (made / "text.txt").write_text(TEXT * 200)
    return made


@given(text=st.text(min_size=1), context=st.integers(1, 9), cut=st.integers(0, 3))
def test_windows_are_the_text_without_what_is_cut_at_its_ends(
    text: str, context: int, cut: int
) -> None:
    part = text.encode()[cut:]
    windows = characters(part, context)
    count = len(part) // context
    assert len(windows) == count
    assert "".join(windows).encode() in part
    assert len("".join(windows).encode()) > count * context - 7
    for n, window in enumerate(windows[1:-1], 1):
        assert abs(len("".join(windows[:n]).encode()) - n * context) <= 6
        assert window in text


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs text in UTF-8.*task\.tokenizer=null"):
        characters(b"abc\xff\xfe" * 9, 4)


@torch.no_grad()
def test_bits_per_byte_are_those_of_the_library(folder: Path) -> None:
    theirs = llama(folder)
    ours: LanguageModel = built(
        "transformer", Formats(family="transformer", default="huggingface").read(str(folder))
    )
    task = text_task(path=str(folder / "text.txt"), tokenizer=str(folder), context=40)
    result = task.evaluate(ours, "test", "cpu")
    own = load_tokenizer(str(folder))
    texts = characters(task.parts["test"].tobytes(), 40)
    total = 0.0
    for text in texts:
        ids = torch.tensor([[0, *own.encode(text)]])
        logits = theirs(ids).logits[0, :-1].double()
        total += float(F.cross_entropy(logits, ids[0, 1:], reduction="sum"))
    length = sum(len(text.encode()) for text in texts)
    assert result.value == pytest.approx(total / math.log(2) / length, rel=1e-5)
    assert result.n_items == len(texts) == len(task.windows("test"))
    assert result.metric == "bits_per_byte"
    assert result.notes["symbols"].endswith("bytes each")
    assert "tokenizer" not in result.notes


def test_training_sees_windows_of_symbols(folder: Path) -> None:
    task = text_task(path=str(folder / "text.txt"), tokenizer=str(folder), context=16)
    batch = next(task.batches("train", 3, seed=0))["tokens"]
    stream = task.symbols("train")
    assert batch.shape == (3, 16)
    assert task.vocab_size == 300 > int(batch.max())
    windows = np.lib.stride_tricks.sliding_window_view(stream, 16)
    assert all((windows == row.numpy()).all(1).any() for row in batch)
    assert load_tokenizer(str(folder)).decode(stream.tolist()) in TEXT * 200
    assert task.example(2)["tokens"][0].tolist() == stream[:16].tolist()


def test_the_worlds_tokenizer_and_a_single_file(folder: Path) -> None:
    for name, size in ((WORLD, 65536), (str(folder / "tokenizer.json"), 300)):
        own = load_tokenizer(name)
        assert own.vocab_size == size
        ids = own.encode(TEXT)
        assert own.decode(ids) == TEXT
        assert 0 < len(ids) < len(TEXT.encode())
        assert max(ids) < size


def test_numbers_of_symbols_may_have_gaps(folder: Path, tmp_path: Path) -> None:
    """A table needs rows up to the largest, not as many as there are symbols."""
    for file in folder.glob("tokenizer*.json"):
        shutil.copy(file, tmp_path)
    tree = json.loads((tmp_path / "tokenizer.json").read_text())
    tree["model"]["vocab"]["e"] = 9999
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    for name in (tmp_path, tmp_path / "tokenizer.json"):
        own = load_tokenizer(str(name))
        assert own.vocab_size == 10_000 > max(own.encode("eel")) == 9999


def test_a_lossy_tokenizer_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = text_task(path=str(folder / "text.txt"), tokenizer=str(folder), context=40)
    assert task.tokenizer is not None
    whole: Any = task.tokenizer.decode
    monkeypatch.setattr(task.tokenizer, "decode", lambda ids: whole(ids).lower())
    ours = built(
        "transformer", Formats(family="transformer", default="huggingface").read(str(folder))
    )
    result = task.evaluate(ours, "test", "cpu", max_items=10)
    assert "10 windows are not what their symbols stand for" in result.notes["tokenizer"]


@pytest.mark.parametrize(("name", "words"), [("nowhere", "cannot be read"), ("", "cannot be read")])
def test_what_is_no_tokenizer(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"task\.tokenizer=.*{words}.*or null for bytes"):
        load_tokenizer(str(tmp_path / name))


def test_a_text_with_fewer_symbols_than_a_context(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("the text " * 60)
    task = text_task(path=str(tmp_path / "short.txt"), tokenizer=str(folder), context=50)
    with pytest.raises(ValueError, match=r"task\.context=50 is too long: the test part has"):
        next(task.batches("test", 1, seed=0))
