"""Checkpoints through the command line: read, scored, fine-tuned, saved, refused."""

from pathlib import Path
from typing import Any

import pytest

from bench import save
from bench.errors import BadInput
from bench.pretrained import Pretrained
from tests.runner.conftest import Done, here, python, records
from tests.small import llama, tokenizer

SMALL = ("task=text", "threads=1", "suite.items.text=8", "suite.test_items=8",
         "suite.validation_items=8", "suite=smoke")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llama")
    llama(made)
    tokenizer(made)
    return made


def run(results: Path, *words: str) -> Done:
    return here(f"results={results}", *SMALL, *words)


def test_read_scored_and_tuned_further(folder: Path, results: Path) -> None:
    given = ("model=transformer", f"model.pretrained={folder}", "scenario=quality")
    assert run(results, *given, "scenario.finetune=false,true").code == 0
    read, tuned = sorted(records(results), key=lambda r: r["quality"]["train_items"])
    assert read["cell"]["size"] == "own"
    assert read["parameters"]["target"] is None
    assert read["shape"]["vocab_size"] == 320
    assert read["quality"]["train_items"] == 0
    assert "curve" not in read
    assert len(read["checkpoint"]["sha256"]) == 64
    assert read["checkpoint"] == tuned["checkpoint"]
    assert tuned["quality"]["train_items"] == 8
    assert tuned["quality"]["value"] < read["quality"]["value"]
    # Another checkpoint at the same place is another cell.
    llama(folder, rms_norm_eps=1e-5)
    assert "1 made" in run(results, *given).out


def test_what_was_trained_is_saved_and_read_again(results: Path, tmp_path: Path) -> None:
    assert run(results, "model=rwkv", "scenario=quality").code == 0
    [made] = records(results)
    saved = tmp_path / "saved"
    words = (made["id"], str(saved), "--results", str(results))
    done = python("-m", "bench.save", *words)
    assert (done.code, done.err) == (0, "")
    assert run(results, "model=rwkv", f"model.pretrained={saved}", "scenario=quality").code == 0
    again = next(r for r in records(results) if r["id"] != made["id"])
    assert again["quality"]["value"] == pytest.approx(made["quality"]["value"], abs=1e-6)
    again_there = here(*words, run=save.main)
    assert (again_there.code, again_there.err) == (
        2, f"error: {saved} is not empty; give a new folder\n",
    )  # fmt: skip
    other = here("2", str(tmp_path / "no"), "--results", str(results), run=save.main)
    assert other.code == 2
    assert "2 records in" in other.err
    wrong = here(made["id"], str(tmp_path / "no"), "--results", str(results),
                 "--format", "pickle", run=save.main)  # fmt: skip
    assert wrong.code == 2
    assert "allowed are huggingface, state_spaces, blinkdl" in wrong.err


REFUSED = {
    "another family": (["model=mamba", "model.pretrained={}"], "of type llama; model=mamba needs"),
    "nowhere": (["model=rwkv", "model.pretrained={}/no"], "no file, no folder and no name"),
    "a size": (
        ["model=transformer", "model.pretrained={}", "model.backbone.d_model=64"],
        "model.backbone.d_model=64 is not that of",
    ),
    "a tokenizer": (["model=transformer", "task.tokenizer={}/no"], "task.tokenizer="),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name: str, folder: Path, results: Path) -> None:
    words, said = REFUSED[name]
    done = run(results, *(word.format(folder) for word in words), "scenario=decode,prefill")
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) == 1
    assert said in done.err
    assert not records(results)


class Foreign:
    """A reader whose checkpoint's configuration is `arguments`."""

    def __init__(self, path: Path, **arguments: Any) -> None:
        self.path, self.arguments, self.tokenizer, self.vocab_size = path, arguments, None, 320

    def read(self, name: str) -> Any:
        return self


def test_a_configuration_of_a_checkpoint_is_data(tmp_path: Path) -> None:
    """What Hydra would build where it stands among a model's arguments."""
    reader: Any = Foreign(tmp_path, options={"rope": [{"_target_": "os.getcwd"}]})
    with pytest.raises(BadInput, match=r"its options\.rope\[0\]\._target_ is os\.getcwd"):
        Pretrained.of("x", reader)


def test_symbols_that_a_checkpoint_has_not(tmp_path: Path) -> None:
    reader: Any = Foreign(tmp_path)
    read = Pretrained.of("x", reader)
    read.check(320)
    with pytest.raises(BadInput, match=r"symbols 0 to 320 and model\.pretrained=x 0 to 319; give"):
        read.check(321)


def test_without_its_tokenizer(results: Path, tmp_path: Path) -> None:
    llama(tmp_path / "bare")
    done = run(results, "model=hf", f"model.pretrained={tmp_path}/bare", "scenario=decode")
    assert done.code == 2
    assert "320 symbols and no tokenizer beside it; give task.tokenizer=FOLDER" in done.err


def test_tasks_that_are_no_text(folder: Path, results: Path) -> None:
    given = ("model=transformer", f"model.pretrained={folder}", "scenario=quality")
    done = here(f"results={results}", *given, "task=digits")
    assert done.code == 0
    [made] = records(results)
    assert made["status"] == "unsupported"
    assert "a language model, and task=digits is of kind 'classify'" in made["reason"]
