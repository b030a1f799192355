"""Probes through the command line: bad input, sizes by task, and the same loss twice."""

import json
import math
from pathlib import Path

import pytest
import yaml

from bench.cli import main
from tests.runner.conftest import ROOT, arguments, python, records

# What is given, and what the one sentence must name.
MISTAKES = [
    (
        ["task=recall", "task.pairs=17"],
        "task.length=64 does not hold task.pairs=17: they and their",
    ),
    (["task=recall", "task.vocab_size=8"], "task.vocab_size=8 has 3 keys, and task.pairs=4 are"),
    (
        ["task=parity", "task.longer=[20]"],
        "task.longer=[20] holds 20, and training has task.length=",
    ),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES)
def test_a_probe_that_cannot_be_ends_in_one_sentence(
    tmp_path: Path, words: list[str], sentence: str
) -> None:
    given = ["model=transformer", "suite=probes-quick", "suite.baselines=false", *words]
    done = python("-m", "bench", f"results={tmp_path}", "isolation=fresh", *given)
    assert done.code == 2
    assert "Traceback" not in done.err + done.out
    [line] = [line for line in done.err.splitlines() if sentence in line]
    assert line.startswith("error: task.")
    assert "allowed" in line
    assert records(tmp_path) == []  # nothing was measured


def test_a_suite_names_sizes_by_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scenario=train", "plan=true", "output=json", "task=fake,pictures", "model=fake"]

    def planned(*more: str) -> set[tuple[str, str]]:
        assert main(arguments(tmp_path, *words, *more)) == 0
        cells = json.loads(capsys.readouterr().out.splitlines()[-1])["plan"]
        return {(cell["task"], cell["size"]) for cell in cells}

    both = "+suite.sizes.pictures=[nano,tiny]"
    assert planned() == {("fake", "nano"), ("pictures", "nano")}
    assert planned(both) == {("fake", "nano"), ("pictures", "nano"), ("pictures", "tiny")}
    assert planned(both, "size=tiny") == {("fake", "tiny"), ("pictures", "tiny")}
    for more, sentence in (
        ("+suite.sizes.pictures=[nanoo]", "size=nanoo"),
        ("+suite.sizes.picture=[nano]", "suite.sizes: task=picture is not known"),
    ):
        assert main(arguments(tmp_path, *words, more)) == 2
        assert sentence in capsys.readouterr().err


def test_two_runs_of_a_seed_learn_the_same_to_the_last_digit(tmp_path: Path) -> None:
    """On the same machine and threads: the losses, the weights and what they answer."""
    words = ["suite=probes-quick", "task=recall", "model=transformer,mamba,rwkv"]
    words += ["suite.baselines=false", "suite.items.recall=320", "suite.test_items=64"]
    words += ["suite.validation_items=32"]
    seen = []
    for run in ("first", "second"):
        done = python("-m", "bench", f"results={tmp_path / run}", *words)
        assert done.code == 0, done.err[-2000:]
        made = {r["cell"]["model"]: r for r in records(tmp_path / run)}
        assert set(made) == {"transformer", "mamba", "rwkv"}
        left = {
            (name, kept["name"]): kept["sha256"]
            for name, record in made.items()
            for kept in record["artefacts"]
            if kept["name"] in ("checkpoint.safetensors", "items.npy")
        }
        assert len(left) == 6
        seen.append(({name: r["curve"]["loss"] for name, r in made.items()}, left))
    assert seen[0] == seen[1]
    assert all(math.isfinite(loss) for losses in seen[0][0].values() for loss in losses)


def test_the_suites_have_every_probe() -> None:
    """Standard those at small sizes, full each of them, at its published one where there is one."""
    suites = {
        name: yaml.safe_load((ROOT / f"configs/suite/probes-{name}.yaml").read_text())
        for name in ("quick", "standard", "full")
    }
    tasks = {path.stem: path.read_text() for path in (ROOT / "configs/task").glob("*.yaml")}
    probes = {name for name, text in tasks.items() if "bench.tasks.probes." in text}
    small = {name for name in probes if not any(name.startswith(f"{p}_") for p in probes)}
    assert set(suites["standard"]["tasks"]) == small
    enlarged = {name for name in small if f"{name}_long" in probes or f"{name}_64" in probes}
    assert set(suites["full"]["tasks"]) == probes - enlarged
    for name, suite in suites.items():
        assert set(suite["items"]) == {*suite["tasks"], "language"}, name
        assert set(suite.get("sizes", {})) <= set(suite["tasks"])
