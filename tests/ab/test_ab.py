"""`python -m bench.ab` from end to end, on revisions of a bench that costs nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.ab import sample, trees
from bench.ab.__main__ import main
from bench.machine.variables import SPIN
from bench.store import Store
from tests.ab.checkout import git, repository, write


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = repository(tmp_path / "repo")
    monkeypatch.setattr(trees, "ROOT", root)
    monkeypatch.chdir(tmp_path)
    return root


def records(side: str) -> list[dict]:
    (folder,) = Path("results/ab").iterdir()
    found, problems = Store(folder / side).read_all()
    assert not problems
    return found


def test_a_slower_head_is_told(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(repo, mean=1.2)
    git(repo, "commit", "-am", "two")
    assert main(["--base=one", "--head=HEAD"]) == 10
    said = capsys.readouterr().out
    assert "slower" in said
    assert "fake · nano · text · train" in said
    assert [len(records(side)) for side in ("base", "head")] == [11, 11]  # one warms up
    around = [r["environment"] for r in records("head")]
    assert {part["isolation"] for part in around} == {"fresh interpreter"}
    assert {part["spin"]["GOMP_SPINCOUNT"] for part in around} == {"10000"}


def test_what_is_not_committed_is_compared_too(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(repo, mean=1.3)
    (repo / "bench" / "new.py").write_text("")
    assert main(["--base=one"]) == 10
    assert [r["code"]["dirty"] for r in records("head")[:1]] == [True]
    assert "slower" in capsys.readouterr().out


def test_two_changes_that_are_not_committed_are_not_mixed(repo: Path) -> None:
    sources = []
    for mean in (1.0, 1.001):
        write(repo, mean=mean)
        (repo / "bench" / "new.py").write_text(f"# {mean}")
        main(["--base=one", "--budget=0.2s"])
    for folder in Path("results/ab").iterdir():
        found, _ = Store(folder / "head").read_all()
        sources.append({r["code"]["source_sha256"] for r in found})
    assert len(sources) == 2
    assert [len(source) for source in sources] == [1, 1]
    assert sources[0] != sources[1]


def test_nothing_changed(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--base=one", "--head=one"]) == 0
    assert "same" in capsys.readouterr().out


def test_no_work_tree_is_left(repo: Path) -> None:
    main(["--base=one", "--head=one"])
    listed = subprocess.run(
        ["git", "-C", str(repo), "worktree", "list"], capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.strip().splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_kill_leaves_nothing_behind(repo: Path, tmp_path: Path, number: int) -> None:
    write(repo, "sleep")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = f"""
import sys
from pathlib import Path
from bench.ab import trees
from bench.ab.__main__ import main
trees.ROOT = Path({str(repo)!r})
sys.exit(main(["--base=one"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not list(temporary.glob("archbench-*/cell.json")):  # a process is measured
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said.strip()) == (
        130, "interrupted; every finished sample is kept",
    )  # fmt: skip
    assert not list(temporary.iterdir())
    listed = subprocess.run(
        ["git", "-C", str(repo), "worktree", "list"], capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.strip().splitlines()) == 1


def test_a_tree_that_git_was_still_making_is_removed(repo: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    git(repo, "worktree", "add", "--detach", "--lock", str(root), "one")
    trees._remove(root)
    assert not root.exists()
    listed = subprocess.run(
        ["git", "-C", str(repo), "worktree", "list"], capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.strip().splitlines()) == 1


def test_without_git_it_says_so(
    repo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["--base=one"]) == 2
    assert "git cannot be run" in capsys.readouterr().err


def test_a_budget_ends_it(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--base=one", "--head=one", "--budget=0.2s"]) in (0, 14)
    assert "budget" in capsys.readouterr().out
    assert 1 <= len(records("base")) < 11


@pytest.mark.parametrize(
    ("behaviour", "words"), [("fail", "NaN"), ("crash", "crash: exit code 1: the worker gave up")]
)
def test_a_failing_head_is_told_once(
    repo: Path, capsys: pytest.CaptureFixture[str], behaviour: str, words: str
) -> None:
    write(repo, behaviour)
    assert main(["--base=one"]) != 0
    assert words in capsys.readouterr().out
    assert [r["status"] for r in records("head")] == ["failed"]


def test_refused_input_is_an_error(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(repo, "refuse")
    assert main(["--base=one"]) == 2
    assert "head: task.path=x is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--base=nothing"], "--base=nothing names no commit"),
        (["--base=one", "--budget=soon"], "--budget=soon is no duration"),
        (["--base=one", "--timeout=0"], "--timeout=0"),
    ],
)
def test_bad_input(
    repo: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_both_sides_get_the_same_environment() -> None:
    found = sample.environment(2)
    assert found["OMP_NUM_THREADS"] == "2"
    assert found["PYTHONHASHSEED"] == "0"
    assert found.items() >= SPIN.items()
    fixed = {*sample.worker_environment(2), "PYTHONHASHSEED"}
    assert set(found) <= {*sample.INHERITED, *fixed}
