"""Runs the command line, with the real worker or with the fake one and the test's own YAML.

`python` and `bench` start a process for it, as a user does. `here` and `bench_here` run it in this
one, which has imported everything already, and its cells are children of one fork server for all
commands of a file: for tests of what a command does, not of how its process starts, prints and
ends.
"""

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from bench import cli
from bench.cell import Cell
from bench.process.preload import preloads

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = Path(__file__).resolve().parent / "configs"
SEARCH = f"hydra.searchpath=[{CONFIGS}]"
FAKE = "tests.runner.fakes:run_cell"


# The command line with the fake worker, as `tests.runner.command` has it.
fake_main = functools.partial(cli.main, worker=FAKE)


@dataclass
class Done:
    """A finished command line."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.out.splitlines()[-1])


Command = Callable[..., Done]


def arguments(results: Path, *words: str) -> list[str]:
    return [SEARCH, "allow_targets=[fakepkg]", f"results={results}", "suite=fakes", *words]


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("HYDRA_FULL_ERROR", "HF_HUB_OFFLINE")}
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, **more}


def python(*words: str, cwd: Path = ROOT, **more: str) -> Done:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=600,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def here(*words: str, run: Callable[[list[str]], int] = cli.main) -> Done:
    """`python -m bench WORDS`, or the `main` of another program, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment(), clear=True),
        mock.patch("bench.run.preloads", _one_server),
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run(list(words))
    return Done(code, out.getvalue(), err.getvalue())


# Of our own what one or another command of a file wants; libraries come where one is wanted.
FAMILIES = [f"models.backbones.{name}" for name in ("moe", "mamba", "mamba2", "rwkv7")]
OURS = ("bench.", "models.")
_imported: list[str] = []  # by the fork server that runs


def _one_server(cells: Iterable[Cell], *, energy: bool = False) -> list[str]:
    """`preloads`, for a server that commands share: what it lacks is imported by another one."""
    wanted = preloads(cells, energy=energy)
    if not {name for name in wanted if not name.startswith(OURS)} <= set(_imported):
        wanted = list(dict.fromkeys([*_imported, *wanted, *FAMILIES]))
        _end_server()
        _imported[:] = wanted
    return [*_imported]


def _end_server() -> None:
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    _imported.clear()


@pytest.fixture(scope="module", autouse=True)
def own_server() -> Iterator[None]:
    """What the commands of a file need is imported for that file alone."""
    _end_server()
    yield
    _end_server()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def bench(results: Path) -> Command:
    """`bench("model=fake", …)` runs the command line in a process of its own."""

    def run(*words: str, **more: str) -> Done:
        return python("-m", "tests.runner.command", *arguments(results, *words), **more)

    return run


@pytest.fixture
def bench_here(results: Path) -> Command:
    """As `bench`, in this process; what cells print is not seen."""

    def run(*words: str) -> Done:
        return here(*arguments(results, *words), run=fake_main)

    return run


def records(results: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(results.glob("records/*.json"))]


def kernels(record: dict[str, Any]) -> set[str]:
    """Those of a record, but for the product of its linear layers, which the processor decides."""
    return set(record["cell"]["kernel"].split("+")) - {"onednn"}
