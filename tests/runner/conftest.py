"""Runs the command line in a real process, with the fake worker and the test's own YAML."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = Path(__file__).resolve().parent / "configs"
SEARCH = f"hydra.searchpath=[{CONFIGS}]"


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
        timeout=300,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def bench(results: Path) -> Command:
    """`bench("model=fake", …)` runs the command line in a process of its own."""

    def run(*words: str, **more: str) -> Done:
        return python("-m", "tests.runner.command", *arguments(results, *words), **more)

    return run


def records(results: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(results.glob("records/*.json"))]


def kernels(record: dict[str, Any]) -> set[str]:
    """Those of a record, but for the product of its linear layers, which the processor decides."""
    return set(record["cell"]["kernel"].split("+")) - {"onednn"}
