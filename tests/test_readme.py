"""The README's own words: every YAML in it parses, every command in it is accepted."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml

from bench.cli import WORDS, main
from tests import small

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
# Programs whose commands need records or two revisions: their arguments are read, nothing is run.
PARSED = {
    "bench.report": "bench.report.__main__",
    "bench.ab": "bench.ab.__main__",
    "bench.selftest": "bench.selftest.__main__",
    "bench.records.command": "bench.records.command",
    "bench.eval": "bench.eval",
    "bench.prepare": "bench.prepare",
    "bench.save": "bench.save",
}
PROGRAMS = ("python -m bench", "archbench", "make bench")


def commands() -> list[str]:
    """Whole lines of shell blocks and code spans that begin with the program."""
    lines = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    found = (line.partition(" #")[0].strip() for line in lines)
    return list(dict.fromkeys(line for line in found if line.startswith(PROGRAMS)))


def yamls() -> list[str]:
    return [block for kind, block in BLOCKS if kind == "yaml"]


def words_of(command: str) -> tuple[str, list[str]]:
    """The program and its arguments; `make bench` passes on what stands in ARGS."""
    words = shlex.split(command)
    if words[0] == "make":
        passed = [word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")]
        return "bench", shlex.split(" ".join(passed))
    return ("bench", words[1:]) if words[0] == "archbench" else (words[2], words[3:])


def test_the_readme_is_read() -> None:
    found = commands()
    assert "python -m bench model=mamba" in found
    assert any("-m bench.report" in command for command in found)
    assert any(command.startswith("archbench model=mine") for command in found)
    assert any(command.startswith("make bench ARGS=") for command in found)
    assert len(yamls()) >= 1


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the README speaks of: a text, a checkpoint, and YAML of the reader's own model."""
    (tmp_path / "book.txt").write_text("A text of one's own.\n" * 1000)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "index.json").write_text("{}")  # a plan looks whether files are there
    small.llama(tmp_path / "my-llama")
    small.tokenizer(tmp_path / "my-llama")
    for block in yamls():
        first = block.splitlines()[0]
        if match := re.fullmatch(r"# my/configs/(\w+/\w+\.yaml)", first):
            path = tmp_path / "my" / "configs" / match[1]
            path.parent.mkdir(parents=True)
            path.write_text(block)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", yamls())
def test_every_yaml_parses(block: str) -> None:
    value = yaml.safe_load(block)
    assert isinstance(value, dict)
    assert value


# `make bench`, `archbench` and `python -m bench` are one command line: tried once.
@pytest.mark.parametrize("command", {str(words_of(c)): c for c in commands()}.values())
def test_every_command_is_accepted(
    command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, words = words_of(command)
    if program == "bench" and words[:1] == ["records"]:
        program, words = "bench.records.command", words[1:]
    if program in PARSED:
        importlib.import_module(PARSED[program]).parser().parse_args(words)  # exits where it errs
        return
    if program.startswith("benchmarks"):
        importlib.import_module(program)  # as `python -m` does first; running it takes minutes
        return
    if words[:1] == ["doctor"]:
        assert "doctor" in WORDS  # it tries every backend: minutes, and tested elsewhere
        assert words[1:] == []
        return
    given = [w.replace("/path/to/my/configs", str(place / "my" / "configs")) for w in words]
    more = [] if words[:1] == ["list"] else [] if "plan=true" in words else ["plan=true"]
    assert main([*given, *more]) == 0, capsys.readouterr().err
    assert "error" not in capsys.readouterr().err
    assert not (place / "results").exists()


@pytest.mark.parametrize("script", sorted(p.stem for p in (ROOT / "benchmarks").glob("[!_]*.py")))
def test_every_benchmark_can_be_started_as_a_module(script: str) -> None:
    found = importlib.import_module(f"benchmarks.{script}")
    # What its own first lines tell to type is what was started here.
    assert script == "ab" or f"python -m benchmarks.{script}" in (found.__doc__ or "")
