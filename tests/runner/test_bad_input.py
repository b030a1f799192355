"""Every mistake of the user ends in one sentence, exit code 2 and no traceback."""

import os
from pathlib import Path

import pytest

from bench.cli import Application
from bench.errors import BadInput
from bench.identity import data_hint
from tests.runner.conftest import CONFIGS, Command, fake_main, here, python, records

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
# What is given, and what the sentence must name.
MISTAKES = {
    "model=fak": ["model=fak ", "fake", "Did you mean 'fake'"],
    "task=fak": ["task=fak ", "digits", "Did you mean 'fake'"],
    "scenario=trian": ["scenario=trian", "Did you mean 'train'"],
    "size=nanoo": ["size=nanoo", "nano", "tiny", "small", "base"],
    "size=0": ["size=0", "nano"],
    "size=-1": ["size=-1", "nano"],
    "size=small": ["size=small", "model=fake", "nano, tiny"],
    "size.parameters=0": ["size.parameters=0", "above 0"],
    "device=gpu": ["device=gpu", "auto, cpu, cuda"],
    "seed=abc": ["seed=abc", "integers from 0"],
    "seed=-1": ["seed=-1", "integers from 0"],
    "seed=1.5": ["seed=1.5", "whole number"],
    "dtype=int8": ["dtype=int8", "bfloat16, float16, float32"],
    "threads=0": ["threads=0", "integers from 1"],
    "threads=999999": ["threads=999999", f"allowed: integers from 1 to {CORES},"],
    "compile=maybe": ["compile=maybe", "false", "max-autotune", "reduce-overhead", "true"],
    "lr=0": ["lr=0", "above 0"],
    "lr=inf": ["lr=inf", "finite"],
    "optimizer.clip=nan": ["optimizer.clip=nan", "above 0"],
    "optimizer.cooldown=-1": ["optimizer.cooldown=-1", "from 0"],
    "model.name=../x": ["model.name", "cannot be set"],
    "task.kind=classify": ["task.kind", "cannot be set"],
    "model=fäke": ["model=fäke ", "fake", "Did you mean 'fake'"],
    "task.path=/no/bücher (1)": ["task.path=/no/bücher (1) does not exist"],
    "task.path=[a,b]": ["task.path=['a', 'b'] is no path", "folder"],
    "lr=fast": ["lr=fast", "Float"],
    "modle=fake": ["modle", "Did you mean 'model'"],
    "model.backbone.dept=3": ["model.backbone.dept", "depth", "Did you mean 'depth'"],
    "model.backbone.depth=deep": ["model.backbone.depth=deep", "whole number"],
    "model.backbone.width=wide": ["model.backbone.width=wide", "whole number"],
    "suite.seedz=1": ["suite.seedz", "Did you mean 'seeds'"],
    "suite.version=two": ["suite.version=two", "Integer"],
    "suite.items.fake=0": ["suite.items.fake=0", "above 0"],
    "output=xml": ["output=xml", "json, table"],
    "force=perhaps": ["force=perhaps", "bool"],
    "budget=soon": ["budget=soon", "30min"],
    "timeout=0": ["timeout=0", "above 0"],
    "timeout=inf": ["timeout=inf is out of range", "above 0, up to 2000000"],
    "timeout=3e6": ["timeout=3000000.0 is out of range", "up to 2000000"],
    "results=": ["results=", "folder"],
    "memory_limit_gib=-1": ["memory_limit_gib=-1", "above 0"],
    "memory_limit_gib=inf": ["memory_limit_gib=inf is out of range", "above 0"],
    "model=[": ["model=[", "key=value"],
    "lisst": ["lisst", "Did you mean 'list'"],
    "--quick": ["--quick", "--multirun"],
    "+model=other": ["+model=other", "model=VALUE"],
    "hydra.verbose=true": ["hydra.verbose", "hydra.searchpath"],
    "task.path=no/such/file": ["task.path=no/such/file", "does not exist", "folder"],
    "model._target_=os.system": ["model._target_"],
    "model.backbone._target_=os.system": ["os.system", "models.", "allow_targets"],
    "model.backbone._target_=models.output.torch.load": ["models.output.torch", "no module"],
    "model.backbone._target_=models.output.sys": ["models.output defines no sys"],
    "model.backbone._target_=fakepkgs.Model": ["fakepkgs.Model", "fakepkg."],
    "allow_targets=[*]": ["allow_targets=*", "package"],
}


@pytest.mark.parametrize("word", MISTAKES)
def test_one_sentence(word: str, results: Path) -> None:
    own = ["model=fake"] if not word.lstrip("+").startswith("model=") else []
    given = [f"hydra.searchpath=[{CONFIGS}]", "suite=fakes", *own]
    given += [] if word.startswith("allow") else ["allow_targets=[fakepkg]"]
    given += [] if word.startswith("results") else [f"results={results}"]
    done = here(*given, word, run=fake_main)
    assert done.code == 2, done.out + done.err
    sentence = done.err.strip()
    assert len(sentence.splitlines()) == 1, sentence
    assert sentence.startswith("error: ")
    for part in MISTAKES[word]:
        assert part in sentence
    assert not records(results)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("scenario.axis=width", ["scenario.axis=width", "batch, context"]),
        ("scenario.mode=dance", ["scenario.mode=dance", "decode, prefill, train"]),
        ("scenario.start=9 scenario.max=4", ["scenario.start=9 lies above scenario.max=4"]),
        ("scenario.start=0", ["scenario.start=0", "integers from 1"]),
        ("scenario.context=0", ["scenario.context=0", "integers from 1"]),
        ("scenario.factor=1", ["scenario.factor=1", "above 1"]),
        ("scenario.factor=null", ["scenario.factor=None", "above 1"]),
        ("scenario.resolution=-0.1", ["scenario.resolution=-0.1", "from 0"]),
        ("scenario.point_seconds=0", ["scenario.point_seconds=0", "above 0"]),
        ("scenario.memory_limit_gib=0", ["scenario.memory_limit_gib=0", "above 0"]),
    ],
)
def test_a_search_that_could_not_be(words: str, parts: list[str], tmp_path: Path) -> None:
    app = Application(
        ["suite=frontier", "model=transformer", f"results={tmp_path}", *words.split()]
    )
    with pytest.raises(BadInput) as caught:
        app.run("no.worker:starts")
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("scenario.checks=-1", "scenario.checks=-1 is no number of checks; allowed: whole numbers"),
        ("scenario.checks=2.5", "from 0 to 1000"),
        ("scenario.checks=many", "scenario.checks=many is no number"),
        ("task.target=soon", "task.target=soon is no score; allowed: a finite number, or null"),
        ("task.target=inf", "task.target=inf is no score"),
    ],
)
def test_checks_and_targets_that_could_not_be(word: str, part: str, tmp_path: Path) -> None:
    given = ["task=text", "scenario=quality", "model=transformer", f"results={tmp_path}"]
    with pytest.raises(BadInput, match=part):
        Application([*given, word]).run("no.worker:starts")


@pytest.mark.parametrize(
    "twice",
    [
        ("suite=quick",),  # the first is the fixture's own
        ("task=fake", "task=pictures"),
        ("size=nano", "size=tiny"),
        ("seed=0", "seed=1"),
        ("lr=0.1", "lr=0.2"),
        ("model.backbone.depth=1", "model.backbone.depth=2"),
        ("output=json", "output=table"),
        ("suite.items.fake=3", "+suite.items.fake=4"),
    ],
)
def test_a_key_given_twice(bench_here: Command, results: Path, twice: tuple[str, ...]) -> None:
    done = bench_here(*twice)
    assert done.code == 2
    key = twice[-1].lstrip("+").partition("=")[0]
    assert done.err.startswith(f"error: {key} is given twice, '{twice[-1]}' the second time")
    assert len(done.err.splitlines()) == 1
    assert not records(results)


def test_debug_shows_the_traceback(bench: Command) -> None:
    for done in (bench("model=fak", "--debug"), bench("model=fak", HYDRA_FULL_ERROR="1")):
        assert done.code == 2
        assert "Traceback" in done.err


def test_cuda_that_is_not_there(bench: Command) -> None:
    done = bench("model=fake", "device=cuda", CUDA_VISIBLE_DEVICES="")
    assert done.code == 2
    assert "device=cuda is not there" in done.err
    assert len(done.err.splitlines()) == 1


def test_results_that_cannot_be_written(bench: Command, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    done = bench("model=fake", f"results={blocked}/below")
    assert done.code == 2
    assert f"results={blocked}/below" in done.err
    assert len(done.err.splitlines()) == 1


def test_empty_and_unreadable_data(bench_here: Command, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    done = bench_here("model=fake", f"task.path={empty}")
    assert (done.code, "is empty" in done.err) == (2, True)
    if os.geteuid() != 0:
        empty.chmod(0)
        assert "cannot be read" in bench_here("model=fake", f"task.path={empty}").err


def test_a_pipe_is_no_data(bench_here: Command, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = bench_here("model=fake", f"task.path={tmp_path / 'pipe'}")
    assert (done.code, "holds no file" in done.err) == (2, True)


def test_a_folder_of_hidden_files_alone_holds_nothing(bench_here: Command, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config").write_text("x" * 10_000)
    done = bench_here("model=fake", f"task.path={folder}")
    assert done.code == 2
    assert "holds no file" in done.err


def test_names_of_people_are_read(bench: Command, tmp_path: Path) -> None:
    text = tmp_path / "bücher (alt) ü.txt"
    text.write_text("words")
    done = bench("model=fake", f"task.path={text}", "scenario=train", "suite.baselines=false")
    assert done.code == 0, done.err


@pytest.mark.parametrize("pattern", ["*/words.txt", "**/words.txt", "a/*.txt"])
def test_a_glob_may_have_its_stars_anywhere(
    bench_here: Command, tmp_path: Path, pattern: str
) -> None:
    text = tmp_path / "a" / "words.txt"
    text.parent.mkdir()
    text.write_text("words")
    path = f"{tmp_path}/{pattern}"
    done = bench_here("model=fake", f"task.path='{path}'", "plan=true")
    assert done.code == 0, done.err
    before = data_hint({"path": path})
    text.write_text("other words")
    assert data_hint({"path": path}) != before, "other data is another cell"


def test_a_defect_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench import cli

    def broken(*_: object) -> int:
        raise KeyError("nobody thought of it")

    monkeypatch.setattr(cli, "_dispatch", broken)
    assert cli.main(["model=fake"]) == 1
    assert capsys.readouterr().err == (
        "error: unexpected KeyError: 'nobody thought of it' (--debug shows where)\n"
    )
    assert cli.main(["model=fake", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_bad_data_found_by_the_worker(bench: Command, results: Path) -> None:
    """It is said once, the other task's cells go on, nothing is recorded as its result."""
    done = bench("model=fake", "model.behaviour=bad", "seed=0", "scenario=prefill,train")
    assert done.code == 2
    assert done.err.splitlines() == ["error: task.path=x is shorter than one context of 256 bytes"]
    assert not records(results)


def test_a_broken_yaml_of_the_user(bench_here: Command, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "broken.yaml").write_text("name: [1, 2\nfamily: x: y\n")
    done = bench_here(f"hydra.searchpath=[{CONFIGS},{tmp_path}]", "model=broken")
    assert done.code == 2
    assert "Traceback" not in done.err
    assert "broken" in done.err


def test_a_model_that_shadows_ours(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    (tmp_path / "configs").mkdir()
    done = python("-m", "bench", "plan=true", cwd=tmp_path)
    assert done.code == 2
    assert "archbench" in done.err
    assert str(tmp_path / "models") in done.err
    done = python("-m", "bench", "list", cwd=tmp_path)
    assert done.code == 0
    assert "archbench" in done.err
    assert str(tmp_path / "configs") in done.err
