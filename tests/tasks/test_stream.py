"""Task stream: the same windows and scores as task text, an order that resumes exactly."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.shards.jobs import PIECE
from bench.tasks import stream
from bench.tasks.base import SPLITS
from bench.tasks.stream import Batches
from bench.tasks.text import TextTask
from tests.shards.texts import prepared, stream_task, write_lines
from tests.small import tokenizer
from tests.tasks.fakes import ConstantText, LastByte, PerfectText, text_task

CONTEXT = 32
MIB_LINES = PIECE // 16


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 2.5 MiB whose cuts are ends of lines, and its shards in `shards`."""
    made = tmp_path_factory.mktemp("stream")
    write_lines(made / "text", 160_000)
    prepared(made / "shards", made / "text")
    return made


@pytest.fixture(scope="module")
def raw(place: Path) -> np.ndarray:
    return np.frombuffer((place / "text").read_bytes(), dtype=np.uint8)


@pytest.fixture(scope="module")
def text(place: Path) -> TextTask:
    """Task text of the same file, cut at the same bytes."""
    return text_task(path=str(place / "text"), context=CONTEXT)


def rows(batches: Batches, count: int) -> Tensor:
    """The windows of the next `count` batches."""
    return torch.cat([batch["tokens"] for batch in itertools.islice(batches, count)])


def test_windows_are_those_of_task_text_and_of_numpy(
    place: Path, raw: np.ndarray, text: TextTask
) -> None:
    task = stream_task(place / "shards", context=CONTEXT)
    ends = np.cumsum([0, *(round(share * len(raw)) for share in (0.8, 0.1, 0.1))])
    assert task.data.sizes == text.data.sizes
    for split, begin, end in zip(SPLITS, ends[:-1], ends[1:], strict=True):
        count = (end - begin) // CONTEXT
        cut = raw[begin : begin + count * CONTEXT].reshape(count, CONTEXT)
        windows = task.windows(split)
        assert len(windows) == count
        assert np.array_equal(windows[:], cut)
        assert np.array_equal(windows[np.array([5, 0, count - 1])], cut[[5, 0, count - 1]])
        assert np.array_equal(windows[:], text.windows(split))
    assert torch.equal(task.example(3)["tokens"], text.example(3)["tokens"])
    assert task.example(2, 100_000)["labels"].shape == (2, 100_000)


@pytest.mark.parametrize("cached", [False, True])
def test_scores_are_those_of_task_text(place: Path, text: TextTask, cached: bool) -> None:
    task = stream_task(place / "shards", context=CONTEXT)
    for most in (None, 9):
        ours = task.evaluate(LastByte(cached), "test", "cpu", max_items=most, full=True)
        # Of the many windows 4,096 are scored, evenly spread.
        theirs = text.evaluate(LastByte(cached), "test", "cpu", max_items=most or 4096, full=True)
        assert np.array_equal(ours.items, theirs.items)
        assert (ours.value, ours.secondary, ours.notes) == (
            theirs.value, theirs.secondary, theirs.notes,
        )  # fmt: skip
    assert ours.n_items == 9
    few = stream_task(place / "shards", context=CONTEXT, scored=7)
    assert few.evaluate(ConstantText(), "validation", "cpu").n_items == 7
    assert few.evaluate(PerfectText(), "validation", "cpu", max_items=3).n_items == 3


def test_baselines_are_those_of_the_beginning_of_train(
    place: Path, text: TextTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "FITTED_BYTES", 50_000)
    task = stream_task(place / "shards", context=CONTEXT, scored=50)
    found = {baseline.name: baseline.quality for baseline in task.baselines()}
    assert list(found) == ["uniform", "order-0", "bigram", "5-gram", "lzma"]
    assert found["uniform"].value == 8
    train = text.parts["train"][:50_000]
    share = (np.bincount(train, minlength=256) + 0.0) / len(train)
    chosen = np.linspace(0, len(text.windows("test")) - 1, 50).round().astype(int)
    seen = text.windows("test")[chosen]
    assert found["order-0"].value == pytest.approx(-np.log2(share[seen]).mean(), abs=0.02)
    assert found["order-0"].n_items == 50


def test_an_epoch_shows_each_window_once_across_shards(place: Path, raw: np.ndarray) -> None:
    task = stream_task(place / "shards", context=1000)
    assert len(list((place / "shards").glob("train-*.bin"))) > 1
    batches = task.batches("train", 7, seed=1)
    count = batches.order.count
    seen = np.concatenate([next(batches)["tokens"].numpy() for _ in range(count // 7 + 1)])[:count]
    train = raw[: task.data.sizes["train"]]
    first = int(batches.order.starts(0, count).min())
    cut = train[first : first + count * 1000].reshape(count, 1000)
    assert sorted(map(bytes, seen.astype(np.uint8))) == sorted(map(bytes, cut))
    assert count == len(train) // 1000 - 1 or count == len(train) // 1000


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(place: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK_WINDOWS", 16)
    alone = stream_task(place / "shards").batches("train", 5, seed=2)
    helped = stream_task(place / "shards", workers=workers).batches("train", 5, seed=2)
    assert torch.equal(rows(alone, 100), rows(helped, 100))


def test_neither_batch_size_nor_block_changes_the_order(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = stream_task(place / "shards")
    wanted = rows(task.batches("train", 1, seed=3), 600)
    assert torch.equal(rows(task.batches("train", 600, seed=3), 1), wanted)
    monkeypatch.setattr(stream, "BLOCK_WINDOWS", 7)
    assert torch.equal(rows(task.batches("train", 50, seed=3), 12), wanted)
    assert not torch.equal(rows(task.batches("train", 600, seed=4), 1), wanted)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shown", [0, 1, 37, 4000])
def test_what_is_resumed_goes_on_exactly(place: Path, workers: int, shown: int) -> None:
    """Within a block, and past the end of an epoch."""
    task = stream_task(place / "shards", context=1000, workers=workers)
    whole = task.batches("train", 3, seed=5)
    assert 37 * 3 < whole.order.count < 4000 * 3
    rows(whole, shown) if shown else None
    state = whole.state()
    assert state["windows"] == 3 * shown
    expected = rows(whole, 40)
    fresh = stream_task(place / "shards", context=1000).batches("train", 3, seed=5)
    fresh.resume(state)
    assert torch.equal(rows(fresh, 40), expected)
    # What was read ahead is dropped, and other batches may follow.
    whole.resume(state)
    whole.batch_size = 120
    assert torch.equal(rows(whole, 1), expected)


def test_a_state_of_something_else_is_refused(place: Path) -> None:
    batches = stream_task(place / "shards").batches("train", 3, seed=5)
    state = batches.state()
    for key, value in (("seed", 6), ("context", 8), ("sha256", "x"), ("windows", -1)):
        with pytest.raises(ValueError, match=rf"{key}.*allowed"):
            batches.resume(state | {key: value})
    with pytest.raises(ValueError, match="windows"):
        batches.resume({k: v for k, v in state.items() if k != "windows"})


def test_wrong_arguments_are_refused(place: Path) -> None:
    task = stream_task(place / "shards")
    for call in (
        lambda: task.batches("dev", 4, 0),
        lambda: task.batches("train", 0, 0),
        lambda: task.windows("dev"),
        lambda: task.example(0),
        lambda: task.evaluate(ConstantText(), "test", "cpu", max_items=0),
    ):
        with pytest.raises(ValueError, match=r"allowed|at least 1"):
            call()


# --- symbols of a tokenizer


class Counting:
    """A nat for each symbol, so that a score tells how many there were."""

    def log_prob(self, tokens: Tensor, counted: Tensor) -> Any:
        return SimpleNamespace(nats=-counted.sum(1).double(), bound=False, forwards=1)


@pytest.fixture(scope="module")
def symbols(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text in `text`, a tokenizer in `own`, and shards of its symbols in `shards`."""
    made = tmp_path_factory.mktemp("symbols")
    words = ["the", "quick", "brown", "fox", "jumps", "über", "den", "faulen", "Hund"]
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(words, size=8)) for _ in range(600)]
    # Ten times the same, so that the cuts at 80 and 90 % are ends of lines.
    (made / "text").write_text(10 * ("\n".join(lines) + "\n"), encoding="utf-8")
    (made / "own").mkdir()
    tokenizer(made / "own", " ".join(words))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.shards.files.PIECE", PIECE // 8)
        prepared(made / "shards", made / "text", tokenizer=str(made / "own"))
    return made


def test_train_is_what_the_library_makes_of_it(symbols: Path) -> None:
    from tokenizers import Tokenizer

    task = stream_task(symbols / "shards")
    own = Tokenizer.from_file(str(symbols / "own" / "tokenizer.json"))
    assert task.vocab_size == own.get_vocab_size()
    raw = (symbols / "text").read_bytes()
    assert PIECE // 8 < task.data.sizes["train"] < PIECE // 4  # two pieces, encoded each
    train = raw[: task.data.sizes["train"]]
    found = task.train[:]
    assert found.dtype == np.uint16
    assert own.decode(found.tolist(), skip_special_tokens=False).encode() == train
    cut = train.index(b"\n", PIECE // 8 - 1) + 1
    expected = [own.encode(t.decode(), add_special_tokens=False).ids for t in
                (train[:cut], train[cut:])]  # fmt: skip
    assert np.array_equal(found, np.concatenate(expected))
    tokens = next(task.batches("train", 4, seed=0))["tokens"]
    assert tokens.shape == (4, 32)
    assert tokens.max() >= 256


def test_scores_are_those_of_task_text_with_the_tokenizer(symbols: Path) -> None:
    task = stream_task(symbols / "shards")
    text = text_task(path=str(symbols / "text"), tokenizer=str(symbols / "own"), context=32)
    for most in (None, 20):
        ours = task.evaluate(Counting(), "test", "cpu", max_items=most)
        theirs = text.evaluate(Counting(), "test", "cpu", max_items=most)
        assert np.array_equal(ours.items, theirs.items)
        assert (ours.metric, ours.notes) == (theirs.metric, theirs.notes)
    assert len(ours.items) == 20


def test_bytes_and_symbols_of_one_text_have_one_hash(
    symbols: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.shards.files.PIECE", PIECE // 8)
    prepared(tmp_path / "bytes", symbols / "text")
    both = [stream_task(folder).data for folder in (tmp_path / "bytes", symbols / "shards")]
    assert both[0].sha256 == both[1].sha256
    assert both[0].sizes == both[1].sizes
    assert "tokenizer" in both[1].notes


def test_another_tokenizer_is_refused(symbols: Path, tmp_path: Path) -> None:
    tokenizer(tmp_path, "quite another text, with other words in it, of which pairs are made")
    with pytest.raises(ValueError, match=r"task\.tokenizer=.* is not the one that made task\.path"):
        stream_task(symbols / "shards", tokenizer=str(tmp_path))
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in (symbols / "own").iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert stream_task(symbols / "shards", tokenizer=str(moved)).vocab_size > 256
    with pytest.raises(ValueError, match=r"split='test' has bytes"):
        stream_task(symbols / "shards").batches("test", 2, 0)


def test_several_processes_encode_alike(symbols: Path, tmp_path: Path) -> None:
    file = symbols / "own" / "tokenizer.json"
    found = [prepared(tmp_path / str(workers), symbols / "text", tokenizer=str(file),
                      workers=workers) for workers in (1, 2)]  # fmt: skip
    assert found[0] == found[1]


def test_text_that_is_no_utf8_has_no_symbols(symbols: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xff\xfe no text\n" * 1000)
    with pytest.raises(ValueError, match=r"--tokenizer needs text in UTF-8.*text"):
        prepared(tmp_path / "out", tmp_path / "text", tokenizer=str(symbols / "own"))
    prepared(tmp_path / "bytes", tmp_path / "text")
