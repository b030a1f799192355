"""One sample: a cell measured in a fresh interpreter of a checkout."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.environment import worker_environment
from bench.errors import BadInput, one_line

DRIVER = Path(__file__).with_name("driver.py")
LOG = "log.txt"
# What a process of the user's carries along and what a measured one may not: the environment lies
# on the stack, and its size shifts addresses (Mytkowicz et al. 2009, "Producing wrong data without
# doing anything obviously wrong!"), so both sides get the same few variables.
INHERITED = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TMPDIR")


@dataclass(frozen=True)
class Side:
    """A checkout under a name; `slowdown` is a share of each call's time that is added to it."""

    name: str
    root: Path
    commit: str | None = None
    dirty: bool = False
    slowdown: float = 0.0


@dataclass(frozen=True)
class Sample:
    """What one process returned, and how long it took from start to end."""

    payload: dict[str, Any]
    wall_s: float

    @property
    def ok(self) -> bool:
        return self.payload.get("status") == "ok"


def take(side: Side, request: Mapping[str, Any], timeout: float) -> Sample:
    """Measure `request` (a cell as the runner hands it to a worker) once, and wait for it.

    Raises BadInput where the checkout refuses its input; whatever else goes wrong is a sample whose
    status is "failed", with the reason.
    """
    begin = time.monotonic()
    command = [sys.executable, "-P", str(DRIVER), str(side.root), str(side.slowdown)]
    with tempfile.TemporaryDirectory(prefix="archbench-") as folder:
        log = Path(folder, LOG)
        try:
            with open(log, "wb") as stream:
                done = subprocess.run(
                    command,
                    input=json.dumps(request).encode(),
                    cwd=folder,
                    env=environment(int(request["threads"])),
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    timeout=timeout,
                )
            payload = _result(Path(folder), done.returncode)
        except subprocess.TimeoutExpired:
            payload = _failed(f"time-out: not finished after {timeout:g} s")
    if payload["status"] == "bad_input":
        raise BadInput(one_line(f"{side.name}: {payload['reason']}"))
    return Sample(payload, time.monotonic() - begin)


def environment(threads: int) -> dict[str, str]:
    """Variables of a measured process: the same on both sides, hashing fixed."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**kept, **worker_environment(threads), "PYTHONHASHSEED": "0"}


def _result(folder: Path, code: int) -> dict[str, Any]:
    path = folder / "result.json"
    if code == 0 and path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    said = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return _failed(f"crash: exit code {code}" + (f": {said[-1]}" if said else ""))


def _failed(reason: str) -> dict[str, Any]:
    return {"status": "failed", "reason": reason}


def plan(side: Side, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The cells that `python -m bench ARGUMENTS` of a checkout would run, with configurations."""
    command = [sys.executable, "-m", "bench", *arguments, "plan=true", "output=json"]
    done = subprocess.run(command, cwd=side.root, capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BadInput(f"{side.name}: {said[-1].removeprefix('error: ')}")
    cells = json.loads(done.stdout.strip().splitlines()[-1])["plan"]
    if any("config" not in cell for cell in cells):
        raise BadInput(
            f"{side.name}: this revision's plan has no configurations, so its cells cannot be run "
            "alone; allowed: revisions whose `plan=true output=json` prints them."
        )
    return [cell for cell in cells if not cell["state"].startswith("unsupported")]
