"""Files of RWKV-4 to 7 through the command line: run, scored, refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runner.conftest import Done, python, records
from tests.rwkv_files import VERSIONS, Eagle, rwkv_file, rwkv_weights
from tests.small import tokenizer

SMALL = ("model=rwkv_package", "threads=1", "suite.items.text=8", "suite.test_items=4",
         "suite.validation_items=4", "suite=smoke")  # fmt: skip


def run(results: Path, *words: str, task: str = "text") -> Done:
    sized = ("task.context=64",) if task == "text" else ()
    return python("-m", "bench", f"results={results}", *SMALL, f"task={task}", *sized, *words)


def by_scenario(results: Path) -> dict[str, Any]:
    return {record["cell"]["scenario"]: record for record in records(results)}


def test_bits_per_byte_of_each_version(results: Path, tmp_path: Path) -> None:
    paths = {v: rwkv_file(tmp_path / f"rwkv-{v}.pth", v, vocab=256) for v in VERSIONS}
    given = ",".join(map(str, paths.values()))
    assert run(results, f"model.pretrained={given}", "scenario=quality").code == 0
    made = {record["shape"]["backbone"]["version"]: record for record in records(results)}
    assert sorted(made) == sorted(VERSIONS)
    for version, record in made.items():
        assert record["status"] == "ok"
        quality = record["quality"]
        assert quality["metric"] == "bits_per_byte"
        assert not quality["bound"]
        assert quality["train_items"] == 0
        assert 8 < quality["value"] < 12  # weights are random, and worse than 8 bits a byte
        assert 8 < quality["secondary"]["carried_bits_per_byte"] < 12
        assert record["cell"]["kernel"] == "rwkv package, cpu fp32"
        assert (record["cell"]["backend"], record["cell"]["size"]) == ("rwkv", "own")
        assert record["checkpoint"]["name"] == str(paths[version])
        assert len(record["checkpoint"]["sha256"]) == 64
    for version in ("5.2", "6.0"):
        value = made[version]["quality"]["value"]
        assert value == pytest.approx(_by_equations(version), abs=1e-5)


def _by_equations(version: str) -> float:
    """Bits per byte of the same windows by the paper's equations."""
    from hydra.utils import instantiate

    from bench.cli import Application
    from bench.tasks.base import pick

    words = ["task=text", "task.context=64"]
    task = instantiate(Application(words).compose(words).task.task, _convert_="all")
    windows = task.windows("test")
    model = Eagle(rwkv_weights(version, vocab=256), version)
    bits = []
    for window in windows[pick(len(windows), 4)].tolist():
        log_p = model.logits([0, *window[:-1]]).log_softmax(-1)
        bits.append(
            -log_p.gather(1, torch.tensor(window)[:, None]).mean() / torch.log(torch.tensor(2.0))
        )
    return float(torch.stack(bits).mean())


def test_speed_and_state_and_what_cannot_be(results: Path, tmp_path: Path) -> None:
    path = rwkv_file(tmp_path / "rwkv.pth", "5.2", vocab=256)
    words = (f"model.pretrained={path}", "scenario=prefill,decode,train,tune")
    assert run(results, *words).code == 0
    made = by_scenario(results)
    for scenario in ("prefill", "decode"):
        record = made[scenario]
        assert record["status"] == "ok"
        assert record["figures"][f"{scenario}_per_s"] > 0
        assert record["memory"]["state_bytes"] == 2 * 4 * (2 * 32 + 32 * 16)
        assert record["memory"]["predicted"]["state_bytes"] == record["memory"]["state_bytes"]
        assert record["cost"]["method"] == "counter"
        assert record["cost"]["formula"] is None
    for scenario in ("train", "tune"):
        assert made[scenario]["status"] == "unsupported"
        assert made[scenario]["reason"].startswith("the rwkv package runs checkpoints and trains")


UNSUPPORTED = {
    "tuning further": (
        ["scenario=quality", "scenario.finetune=true"],
        "model=rwkv_package has no weights that learn; scenario.finetune=false scores it",
    ),
    "a short dtype": (
        ["scenario=decode", "dtype=bfloat16"],
        "model=rwkv_package: it runs here on a CPU in float32, not on cpu in bfloat16",
    ),
    "compiling": (
        ["scenario=quality", "compile=true"],
        "compile=true: the rwkv package runs",
    ),
    "images": (["scenario=quality"], "a language model, and task=digits is of kind"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_told_as_a_result(name: str, results: Path, tmp_path: Path) -> None:
    words, said = UNSUPPORTED[name]
    path = rwkv_file(tmp_path / "rwkv.pth", "4", vocab=256)
    task = "digits" if name == "images" else "text"
    done = run(results, f"model.pretrained={path}", *words, task=task)
    assert done.code == 0, done.err
    [made] = records(results)
    assert made["status"] == "unsupported"
    assert said in made["reason"]


def test_symbols_of_a_tokenizer(results: Path, tmp_path: Path) -> None:
    path = rwkv_file(tmp_path / "rwkv.pth", "5.2", vocab=320)
    done = run(results, f"model.pretrained={path}", "scenario=quality")
    assert done.code == 2
    assert "320 symbols and no tokenizer beside it; give task.tokenizer=FOLDER" in done.err
    tokenizer(tmp_path)  # a tokenizer.json in the file's folder
    assert run(results, f"model.pretrained={path}", "scenario=quality").code == 0
    world = rwkv_file(tmp_path / "world.pth", "4", vocab=65536)
    assert run(results, f"model.pretrained={world}", "scenario=quality").code == 0
    for made in records(results):
        assert made["quality"]["value"] > 1
        assert "bytes each" in made["quality"]["notes"]["symbols"]


def test_refused_in_one_sentence(results: Path, tmp_path: Path) -> None:
    def refused(words: str, *given: str) -> None:
        done = run(results, *given, "scenario=decode")
        assert done.code == 2
        assert done.err.startswith("error: ")
        assert len(done.err.splitlines()) == 1
        assert words in done.err
        assert not records(results)

    refused("model=rwkv_package draws no weights of its own; give model.pretrained=FILE")
    refused("has no weights of its own; give model.pretrained", "model.pretrained=null")
    (tmp_path / "text.pth").write_text("no tensors\n")
    refused("holds other things than named tensors", f"model.pretrained={tmp_path}/text.pth")
    path = rwkv_file(tmp_path / "rwkv.pth", "6.0", vocab=256)
    refused(
        "model.backbone.version=4 is not that of", f"model.pretrained={path}",
        "model.backbone.version=4",
    )  # fmt: skip
