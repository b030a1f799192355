"""Language modelling: windows, batches, what known predictors score, and bad input."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.tasks.hub import load_hub
from bench.tasks.text import TextTask
from tests.tasks.fakes import ConstantText, LastByte, PerfectText, text_task


@pytest.fixture(scope="module")
def task() -> TextTask:
    return text_task()


def test_windows_hold_each_byte_once_and_drop_the_last_partial_one(task: TextTask) -> None:
    for split in ("train", "validation", "test"):
        windows = task.windows(split)
        part = task.parts[split]
        assert windows.shape[1] == 256
        assert 0 <= len(part) - windows.size < 256
        assert np.array_equal(windows.ravel(), part[: windows.size])


def test_constant_and_perfect_predictors_score_what_theory_says(task: TextTask) -> None:
    constant = task.evaluate(ConstantText(), "test", "cpu", full=True)
    assert constant.metric == "bits_per_byte"
    assert constant.value == pytest.approx(math.log2(256))
    assert constant.stderr == pytest.approx(0, abs=1e-6)
    assert constant.n_items == len(task.windows("test")) == len(constant.items)
    assert not constant.bound
    assert "carried_bits_per_byte" not in constant.secondary
    assert task.evaluate(PerfectText(), "test", "cpu").value == 0.0
    assert task.evaluate(ConstantText(bound=True), "test", "cpu").bound


def test_value_is_the_mean_of_the_items_whatever_the_batching(task: TextTask) -> None:
    model = LastByte()
    result = task.evaluate(model, "test", "cpu")
    windows = torch.from_numpy(task.windows("test").astype(np.int64))
    singly = [-float(model.log_prob(w[None]).nats) / (math.log(2) * 256) for w in windows]
    assert np.allclose(result.items, singly, atol=1e-5)
    assert result.value == pytest.approx(np.mean(singly), abs=1e-5)
    assert result.stderr == pytest.approx(np.std(singly, ddof=1) / math.sqrt(len(singly)), rel=1e-4)


def test_max_items_spreads_over_the_split(task: TextTask) -> None:
    model = LastByte()
    every, some = (task.evaluate(model, "test", "cpu", max_items=n) for n in (None, 10))
    assert some.n_items == 10
    assert some.items[0] == pytest.approx(every.items[0])
    assert some.items[-1] == pytest.approx(every.items[-1])


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("form", ["one stream", "equal streams", "ragged streams"])
def test_carried_state_scores_every_byte_of_the_stream_once(
    task: TextTask, cached: bool, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = task.windows("test").astype(np.int64)
    wanted = {"one stream": 1, "equal streams": 2, "ragged streams": 3}[form]
    windows = windows[: len(windows) // 6 * 6 + (form == "ragged streams")]
    streams_of = -(-len(windows) // wanted)
    streams = -(-len(windows) // streams_of)
    assert (streams, len(windows) % streams > 0) == (wanted, form == "ragged streams")
    monkeypatch.setattr("bench.tasks.language.STREAM_WINDOWS", streams_of)
    model = LastByte(cached)
    result = task.evaluate(model, "test", "cpu", max_items=len(windows), full=True)
    # The table needs one byte of history alone, so whole streams are scored at once.
    parts = [torch.from_numpy(part.reshape(1, -1)) for part in np.array_split(windows, streams)]
    nats = sum(float(model.log_prob(part).nats.double().sum()) for part in parts)
    expected = -nats / (math.log(2) * windows.size)
    assert result.secondary["carried_bits_per_byte"] == pytest.approx(expected, abs=1e-6)
    assert result.secondary["carried_bits_per_byte"] != pytest.approx(result.value, abs=1e-6)
    assert model.longest == (256 if cached else 0)
    assert ("cropped" in result.notes["carried"]) == cached
    assert f"the first {windows.size} bytes in order, {streams} stream" in result.notes["carried"]


def test_carried_state_obeys_max_items(task: TextTask) -> None:
    model = LastByte()
    some = task.evaluate(model, "test", "cpu", max_items=3, full=True)
    text = torch.from_numpy(task.windows("test")[:3].reshape(1, -1).astype(np.int64))
    expected = -float(model.log_prob(text).nats.double().sum()) / (math.log(2) * 768)
    assert some.secondary["carried_bits_per_byte"] == pytest.approx(expected, abs=1e-6)
    assert "the first 768 bytes in order" in some.notes["carried"]


def test_scoring_leaves_training_mode_and_random_numbers_alone(task: TextTask) -> None:
    class Noisy(LastByte):
        def log_prob(self, tokens: Any) -> Any:
            assert not self.training
            assert not torch.is_grad_enabled()
            score = super().log_prob(tokens)
            score.nats += torch.rand(len(tokens))
            return score

    model = Noisy().train()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = task.evaluate(model, "test", "cpu", max_items=5)
    assert torch.equal(torch.rand(2), expected)
    assert model.training
    assert np.array_equal(first.items, task.evaluate(model, "test", "cpu", max_items=5).items)


def test_batches_are_seeded_and_cover_the_part(task: TextTask) -> None:
    first = task.batches("validation", 8, seed=1)
    again = task.batches("validation", 8, seed=1)
    other = task.batches("validation", 8, seed=2)
    seen = []
    for _ in range(20):
        batch = next(first)
        assert batch["tokens"].shape == (8, 256)
        assert batch["tokens"].dtype == torch.int64
        assert torch.equal(batch["tokens"], batch["labels"])
        assert torch.equal(batch["tokens"], next(again)["tokens"])
        seen.append(batch["tokens"])
    assert not torch.equal(seen[0], next(other)["tokens"])
    rows = {bytes(row.tolist()) for row in torch.cat(seen).to(torch.uint8)}
    assert len(rows) == 160  # one epoch has at most 162 windows
    part = task.parts["validation"].tobytes()
    assert all(row in part for row in rows)


def test_example_has_the_shape_that_timing_asks_for(task: TextTask) -> None:
    assert task.example(3)["tokens"].shape == (3, 256)
    assert task.example(2, 5000)["labels"].shape == (2, 5000)
    assert torch.equal(task.example(3, 7)["tokens"], task.example(3, 7)["tokens"])


# --- the user's own data


def test_path_takes_a_file_of_any_bytes(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(256, size=10_000, dtype=np.uint8).tobytes()
    file = tmp_path / "some.bin"
    file.write_bytes(data)
    task = text_task(path=str(file), context=64)
    assert b"".join(task.parts[s].tobytes() for s in ("train", "validation", "test")) == data
    assert task.data.sizes == {"train": 8000, "validation": 1000, "test": 1000}
    assert task.data.id.startswith("path-some.bin-")
    assert task.data.notes["overlap"].startswith("0.00 %")


def test_path_takes_folders_and_globs_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2.txt", "a.txt", "c.md", ".hidden"):
        (tmp_path / name).write_text(f"{name} " * 100)
    folder = text_task(path=str(tmp_path), context=16)
    text = b"".join(folder.parts[s].tobytes() for s in ("train", "validation", "test")).decode()
    assert text == "".join(f"{n} " * 100 for n in ("a.txt", "b/2.txt", "c.md"))
    globbed = text_task(path=str(tmp_path / "**" / "*.txt"), context=16)
    assert sum(globbed.data.sizes.values()) == len("a.txt " * 100 + "b/2.txt " * 100)
    assert "2 files" in globbed.data.notes["split"]
    # `**` yields folders beside the files in them; `*` yields folders that it does not enter.
    for pattern, count in (("**", 3), ("*", 2)):
        matched = text_task(path=str(tmp_path / pattern), context=16)
        assert f"{count} files" in matched.data.notes["split"]


def test_overlap_of_repeated_text_is_recorded(tmp_path: Path) -> None:
    file = tmp_path / "repeated.txt"
    file.write_bytes(b"the same line again and again\n" * 400)
    assert text_task(path=str(file)).data.notes["overlap"].startswith("100.00 %")


def refused(match: str, **changes: Any) -> str:
    with pytest.raises(ValueError, match=match) as error:
        text_task(**changes)
    message = str(error.value)
    assert "allowed" in message or "give one" in message or "must be" in message
    assert "\n" not in message
    return message


def test_missing_empty_short_and_unreadable_data_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "no.txt"
    assert str(missing) in refused("task.path=.*does not exist", path=str(missing))
    refused("task.path=.*does not exist", path=str(tmp_path / "*.txt"))
    (tmp_path / "folder").mkdir()
    refused("task.path=.*holds no files", path=str(tmp_path / "folder"))
    empty = tmp_path / "empty.txt"
    empty.touch()
    refused("task.path=.*is empty", path=str(empty))
    short = tmp_path / "short.txt"
    short.write_text("x" * 2540)
    assert "task.context=256" in refused("task.path=.*too short", path=str(short))
    text_task(path=str(short), context=254)

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    short.chmod(0)
    if os.access(short, os.R_OK):  # the superuser reads everything
        monkeypatch.setattr(Path, "read_bytes", denied)
    refused("task.path=.*unreadable.*Permission denied", path=str(short))


def test_wrong_keys_are_refused(tmp_path: Path) -> None:
    refused("task.corpus=bible", corpus="bible")
    refused("task.path=null", corpus=None)
    refused("exclude each other", path="a", hub="b")
    refused("task.shares", shares=[0.5, 0.5])
    refused("task.shares", shares=[0.5, 0.6, 0.1])
    refused("task.context=0", context=0)
    refused("task.vocab_size=300", vocab_size=300)
    refused("task.corpus=manual is too short", context=10**6)


def test_wrong_arguments_are_refused(task: TextTask) -> None:
    for call in (
        lambda: task.batches("dev", 4, 0),
        lambda: task.batches("train", 0, 0),
        lambda: task.example(0),
        lambda: task.example(1, 0),
        lambda: task.windows("dev"),
        lambda: task.evaluate(ConstantText(), "test", "cpu", max_items=0),
    ):
        with pytest.raises(ValueError, match=r"allowed|at least 1"):
            call()


# --- a data set of the hub: a local folder stands for one


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("datasets")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "lines"
    folder.mkdir()
    return folder


def test_hub_takes_the_text_column(local_hub: Path) -> None:
    rows = [f'{{"text": "line {i} of the text", "n": {i}}}' for i in range(300)]
    (local_hub / "train.jsonl").write_text("\n".join(rows))
    task = text_task(hub=str(local_hub), context=32)
    text = b"".join(task.parts[s].tobytes() for s in ("train", "validation", "test")).decode()
    assert text == "".join(f"line {i} of the text\n" for i in range(300))
    assert task.data.id.startswith("hub-lines-")
    refused("task.hub_column=body", hub=str(local_hub), hub_column="body")
    refused("task.hub_column=n", hub=str(local_hub), hub_column="n")


def test_hub_keeps_the_splits_of_the_data_set(local_hub: Path) -> None:
    for split in ("train", "validation", "test"):
        (local_hub / f"{split}.txt").write_text(f"{split} line\n" * 50)
    task = text_task(hub=str(local_hub), context=32)
    for split in ("train", "validation", "test"):
        assert task.parts[split].tobytes() == f"{split} line\n".encode() * 50
    assert task.data.notes["split"] == "the data set's own"


def test_hub_that_is_not_there_is_refused(local_hub: Path) -> None:
    refused("task.hub=.*could not be loaded", hub=str(local_hub / "nothing"))
    refused("task.hub=.*could not be loaded", hub=str(local_hub))


def test_hub_without_the_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ValueError, match=r"archbench\[hub\]"):
        load_hub("some/name", None)
