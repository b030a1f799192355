"""Files of RWKV-4 to 7 through the command line: run, scored, refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runner.conftest import Done, here, records
from tests.rwkv_files import VERSIONS, Eagle, rwkv_file, rwkv_weights
from tests.small import tokenizer

SMALL = ("model=rwkv_package", "threads=1", "suite.items.text=8", "suite.test_items=4",
         "suite.validation_items=4", "suite=smoke")  # fmt: skip


def run(results: Path, *words: str) -> Done:
    return here(f"results={results}", *SMALL, *words)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of bytes one a version, of symbols one with its tokenizer beside it and one of the world."""
    folder = tmp_path_factory.mktemp("files")
    made = {v: rwkv_file(folder / f"rwkv-{v}.pth", v, vocab=256) for v in VERSIONS}
    (folder / "beside").mkdir()
    tokenizer(folder / "beside")  # a tokenizer.json
    made["beside"] = rwkv_file(folder / "beside" / "rwkv.pth", "5.2", vocab=320)
    made["world"] = rwkv_file(folder / "world.pth", "4", vocab=65536)
    return made


@pytest.fixture(scope="module")
def scored(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Records of the quality of each file."""
    results = tmp_path_factory.mktemp("scored")
    given = ",".join(map(str, files.values()))
    words = ("task=text", "task.context=64", "suite.baselines=false", "scenario=quality")
    done = run(results, *words, f"model.pretrained={given}")
    assert done.code == 0, done.err
    by_path = {record["checkpoint"]["name"]: record for record in records(results)}
    return {name: by_path[str(path)] for name, path in files.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_bits_per_byte_of_each_version(scored: dict[str, Any], version: str) -> None:
    record = scored[version]
    assert record["status"] == "ok"
    assert record["shape"]["backbone"]["version"] == version
    quality = record["quality"]
    assert quality["metric"] == "bits_per_byte"
    assert not quality["bound"]
    assert quality["train_items"] == 0
    assert 8 < quality["value"] < 12  # weights are random, and worse than 8 bits a byte
    assert 8 < quality["secondary"]["carried_bits_per_byte"] < 12
    assert record["cell"]["kernel"] == "rwkv package, cpu fp32"
    assert (record["cell"]["backend"], record["cell"]["size"]) == ("rwkv", "own")
    assert len(record["checkpoint"]["sha256"]) == 64
    if version in ("5.2", "6.0"):
        assert quality["value"] == pytest.approx(_by_equations(version), abs=1e-5)


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


def test_speed_and_state_and_what_cannot_be(files: dict[str, Path], results: Path) -> None:
    words = ("task=text", "task.context=64", f"model.pretrained={files['5.2']}")
    words = (*words, "suite.baselines=false", "scenario=prefill,decode,train,tune")
    assert run(results, *words).code == 0
    made = {record["cell"]["scenario"]: record for record in records(results)}
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
    "scenario.finetune=true": (
        "model=rwkv_package has no weights that learn; scenario.finetune=false scores it"
    ),
    "dtype=bfloat16": (
        "model=rwkv_package: it runs here on a CPU in float32, not on cpu in bfloat16"
    ),
    "compile=true": "compile=true: the rwkv package runs",
    "task=digits": "a language model, and task=digits is of kind",
}


def test_told_as_a_result(files: dict[str, Path], results: Path) -> None:
    done = run(results, f"model.pretrained={files['4']}", "scenario=quality", "task=text,digits",
               "scenario.finetune=false,true", "dtype=float32,bfloat16", "compile=false,true",
               "suite.baselines=false")  # fmt: skip
    assert done.code == 0, done.err
    found: dict[str, str] = {}
    for record in records(results):
        cell, config = record["cell"], record["config"]
        changed = [
            f"{key}={value}"
            for key, value, plain in (
                ("scenario.finetune", str(config["scenario"]["finetune"]).lower(), "false"),
                ("dtype", cell["dtype"], "float32"),
                ("compile", str(cell["compile"]).lower(), "false"),
                ("task", cell["task"], "text"),
            )
            if value != plain
        ]
        assert record["status"] == ("unsupported" if changed else "ok"), record["reason"]
        if len(changed) == 1:
            found[changed[0]] = record["reason"]
    assert found.keys() == UNSUPPORTED.keys()
    for key, said in UNSUPPORTED.items():
        assert said in found[key]


@pytest.mark.parametrize("name", ["beside", "world"])
def test_symbols_of_a_tokenizer(scored: dict[str, Any], name: str) -> None:
    quality = scored[name]["quality"]
    assert quality["value"] > 1
    assert "bytes each" in quality["notes"]["symbols"]


def test_refused_in_one_sentence(files: dict[str, Path], results: Path, tmp_path: Path) -> None:
    words = ("task=text", "task.context=64", "scenario=decode")
    done = run(results, *words)
    assert done.code == 2
    assert done.err == (
        "error: model=rwkv_package draws no weights of its own; give model.pretrained=FILE, a "
        "checkpoint\n"
    )
    (tmp_path / "text.pth").write_text("no tensors\n")
    bare = rwkv_file(tmp_path / "rwkv.pth", "4", vocab=320)
    given = f"{tmp_path}/text.pth,{bare},{files['6.0']}"
    done = run(results, *words, f"model.pretrained={given}", "model.backbone.version=4")
    assert done.code == 2
    assert all(line.startswith("error: ") for line in done.err.splitlines())
    text, symbols, version = done.err.splitlines()
    assert "holds other things than named tensors" in text
    assert "320 symbols and no tokenizer beside it; give task.tokenizer=FOLDER" in symbols
    assert "model.backbone.version=4 is not that of" in version
    assert not records(results)
