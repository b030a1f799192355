"""A pair of samples: a cell in a fresh interpreter of each of two checkouts."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BadInput, one_line
from bench.machine.variables import worker_environment
from bench.process.child import LOG

DRIVER = Path(__file__).with_name("driver.py")
TIMEOUT_S = 900.0  # of one process, set-up and all
WINDOW_S = 2.0  # in which the two processes of a pair take turns
# What a process of the user's carries along and what a measured one may not: the environment lies
# on the stack, and its size shifts addresses (Mytkowicz et al. 2009, "Producing wrong data without
# doing anything obviously wrong!"), so both sides get the same few variables.
INHERITED = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TMPDIR")
# OpenMP's threads spin for more work after a call, ten milliseconds and more, and would do so on
# the partner's time: half a core of noise, and a slowdown of 5 % that reads as 10 %. About half a
# millisecond bridges what lies between two operators. GNU's count is of turns of the spin, LLVM's
# and Intel's time is in milliseconds.
SPIN = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}


@dataclass(frozen=True)
class Side:
    """A checkout under a name; `source` is the hash of what decides its figures.

    `slowdown` is a share of each call's time that is added to it, and `variables` are changes of
    the environment (None takes one away): both are for tests of the instrument alone.
    """

    name: str
    root: Path
    commit: str | None = None
    dirty: bool = False
    source: str | None = None
    slowdown: float = 0.0
    variables: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """What one process returned, and how long it took from start to end."""

    payload: dict[str, Any]
    wall_s: float

    @property
    def ok(self) -> bool:
        return self.payload.get("status") == "ok"


def take_pair(
    sides: tuple[Side, Side],
    requests: tuple[Mapping[str, Any], Mapping[str, Any]],
    timeout: float,
    *,
    second_leads: bool = False,
) -> tuple[Sample, Sample]:
    """Measure a request (a cell as the runner hands it to a worker) once on each side.

    The two processes set up at the same time and then time their calls in turns, never at once;
    `second_leads` says who begins. Raises BadInput where a checkout refuses its input; whatever
    else goes wrong is a sample whose status is "failed", with the reason.
    """
    begin = time.monotonic()
    first, second = os.pipe(), os.pipe()
    ends = ((first[0], second[1]), (second[0], first[1]))  # inbox and outbox of each side
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(_child(side, request, end, leads=(place == 1) == second_leads))
            for place, (side, request, end) in enumerate(zip(sides, requests, ends, strict=True))
        ]
        for descriptor in (*first, *second):
            os.close(descriptor)  # the children's copies are theirs: one that dies is noticed
        samples = [
            Sample(child.wait(begin + timeout, timeout), time.monotonic() - begin)
            for child in children
        ]
    for side, sample in zip(sides, samples, strict=True):
        if sample.payload["status"] == "bad_input":
            raise BadInput(one_line(f"{side.name}: {sample.payload['reason']}"))
    return samples[0], samples[1]


@dataclass(frozen=True)
class _Child:
    """A running driver and the folder that it works in."""

    process: subprocess.Popen[bytes]
    folder: Path

    def wait(self, deadline: float, timeout: float) -> dict[str, Any]:
        """What it left when it ended, or why there is nothing."""
        try:
            code = self.process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            self.process.kill()
            return _failed(f"time-out: not finished after {timeout:g} s")
        path = self.folder / "result.json"
        if code == 0 and path.exists():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        text = (self.folder / LOG).read_text(encoding="utf-8", errors="replace")
        said = text.strip().splitlines()
        return _failed(f"crash: exit code {code}" + (f": {said[-1]}" if said else ""))


@contextlib.contextmanager
def _child(
    side: Side, request: Mapping[str, Any], ends: tuple[int, int], *, leads: bool
) -> Iterator[_Child]:
    options = {"inbox": ends[0], "outbox": ends[1], "leads": leads, "slowdown": side.slowdown}
    command = [sys.executable, "-P", str(DRIVER), str(side.root), json.dumps(options)]
    with tempfile.TemporaryDirectory(prefix="archbench-") as name:
        folder = Path(name)
        (folder / "cell.json").write_text(json.dumps(request), encoding="utf-8")
        with open(folder / "cell.json", "rb") as asked, open(folder / LOG, "wb") as log:
            process = subprocess.Popen(
                command, stdin=asked, stdout=log, stderr=log, cwd=folder, pass_fds=ends,
                env=environment(int(request["threads"]), side.variables),
            )  # fmt: skip
        try:
            yield _Child(process, folder)
        finally:
            process.kill()
            process.wait()


def environment(threads: int, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Variables of a measured process: the same on both sides, hashing fixed."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    fixed = {**worker_environment(threads), **SPIN, "PYTHONHASHSEED": "0"}
    found = {**kept, **fixed, **(changes or {})}
    return {name: value for name, value in found.items() if value is not None}


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
    return [_steady(cell) for cell in cells if not cell["state"].startswith("unsupported")]


def _steady(cell: dict[str, Any]) -> dict[str, Any]:
    """The cell with a window of fixed length, so that both of a pair time equally long."""
    config, suite = cell["config"], cell["config"]["suite"]
    measure = {**suite.get("measure", {}), "min_seconds": WINDOW_S, "max_seconds": WINDOW_S}
    return {**cell, "config": {**config, "suite": {**suite, "measure": measure}}}
