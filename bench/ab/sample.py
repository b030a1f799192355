"""A pair of samples: a cell in a fresh interpreter of each of two checkouts."""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.ab.turns import SLICE_S
from bench.errors import BadInput, one_line
from bench.machine.variables import SPIN, worker_environment
from bench.process.child import LOG
from bench.process.interrupt import check_kills

DRIVER = Path(__file__).with_name("driver.py")
SCORED = "quality"  # the scenario that times nothing
TIMEOUT_S = 900.0  # of one process, set-up and all
WINDOW_S = 2.0  # in which the two processes of a pair take turns
LOOK_S = WINDOW_S  # past the deadline, until it is clear which of two processes the other waits for
GRACE_S = 3 * WINDOW_S  # in which that other one, which is not to blame, may finish alone
# What a process of the user's carries along and what a measured one may not: the environment lies
# on the stack, and its size shifts addresses (Mytkowicz et al. 2009, "Producing wrong data without
# doing anything obviously wrong!"), so both sides get the same few variables.
INHERITED = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TMPDIR")


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
    `second_leads` says who begins. Trainings for a score time nothing and would only fight for the
    cores: they run one after the other. Raises BadInput where a checkout refuses its input;
    whatever else goes wrong is a sample whose status is "failed", with the reason. A time-out is
    that of the side which the other one waits for.
    """
    scored = all(request.get("scenario") == SCORED for request in requests)
    samples: list[Sample] = []
    for places in ((0,), (1,)) if scored else ((0, 1),):
        samples += _take(sides, requests, places, timeout, leader=int(second_leads))
    for side, sample in zip(sides, samples, strict=True):
        if sample.payload["status"] == "bad_input":
            raise BadInput(one_line(f"{side.name}: {sample.payload['reason']}"))
    return samples[0], samples[1]


def _take(
    sides: Sequence[Side],
    requests: Sequence[Mapping[str, Any]],
    places: Sequence[int],
    timeout: float,
    *,
    leader: int,
) -> list[Sample]:
    """The processes of the sides at `places`, side by side."""
    begin = time.monotonic()
    first, second = os.pipe(), os.pipe()
    ends = ((first[0], second[1]), (second[0], first[1]))  # inbox and outbox of each side
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(_child(sides[k], requests[k], ends[k], leads=k == leader))
            for k in places
        ]
        for descriptor in (*first, *second):
            os.close(descriptor)  # the children's copies are theirs: one that dies is noticed
        _finish(children, begin + timeout, f"not finished after {timeout:g} s")
        return [Sample(child.result(), child.end - begin) for child in children]


@dataclass
class _Child:
    """A running driver, the folder that it works in, and the flag that is up while it waits."""

    process: subprocess.Popen[bytes]
    folder: Path
    flag: int
    end: float = 0.0
    stopped: str | None = None

    def wait(self, deadline: float) -> bool:
        """Whether it ended by then."""
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            try:
                self.process.wait(min(left, LOOK_S))
            except subprocess.TimeoutExpired:
                check_kills()
                if left <= LOOK_S:
                    return False
                continue
            self.end = self.end or time.monotonic()
            return True

    def waits(self) -> bool:
        """Whether it sleeps until its partner is ready or hands the baton over."""
        return bool(select.select([self.flag], [], [], 0.0)[0])

    def stop(self, reason: str) -> None:
        self.stopped = reason
        self.process.kill()
        self.process.wait()
        self.end = time.monotonic()

    def result(self) -> dict[str, Any]:
        """What it left when it ended, or why there is nothing."""
        if self.stopped is not None:
            return _failed(self.stopped)
        code, path = self.process.returncode, self.folder / "result.json"
        if code == 0 and path.exists():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        text = (self.folder / LOG).read_text(encoding="utf-8", errors="replace")
        said = text.strip().splitlines()
        return _failed(f"crash: exit code {code}" + (f": {said[-1]}" if said else ""))


def _finish(children: Sequence[_Child], deadline: float, overdue: str) -> None:
    """Until both have ended, by themselves or because they are overdue."""
    reason = f"time-out: {overdue}"
    late = [child for child in children if not child.wait(deadline)]
    if len(late) == 2 and (holder := _holder(late)) is not None:
        holder.stop(reason)
        late.remove(holder)
        reason = f"stopped: it waited for the other side, which was {overdue}"
        late = [child for child in late if not child.wait(time.monotonic() + GRACE_S)]
    for child in late:
        if not child.wait(time.monotonic()):
            child.stop(reason)


def _holder(children: Sequence[_Child]) -> _Child | None:
    """The one of two that the other one waits for all the time; None where there is none.

    Then both take turns still, or neither has come so far.
    """
    waited: set[int] = set()
    until = time.monotonic() + LOOK_S
    while time.monotonic() < until:
        now = [place for place, child in enumerate(children) if child.waits()]
        if len(now) == 1:  # both, or neither: the baton is on its way
            waited.update(now)
        if len(waited) == 2 or any(child.wait(time.monotonic()) for child in children):
            return None
        time.sleep(SLICE_S)
    return children[1 - waited.pop()] if waited else None


@contextlib.contextmanager
def _child(
    side: Side, request: Mapping[str, Any], ends: tuple[int, int], *, leads: bool
) -> Iterator[_Child]:
    flag = os.pipe()
    options = {
        "inbox": ends[0], "outbox": ends[1], "flag": flag, "leads": leads,
        "slowdown": side.slowdown,
    }  # fmt: skip
    command = [sys.executable, "-P", str(DRIVER), str(side.root), json.dumps(options)]
    with tempfile.TemporaryDirectory(prefix="archbench-") as name:
        folder = Path(name)
        (folder / "cell.json").write_text(json.dumps(request), encoding="utf-8")
        with open(folder / "cell.json", "rb") as asked, open(folder / LOG, "wb") as log:
            process = subprocess.Popen(
                command, stdin=asked, stdout=log, stderr=log, cwd=folder, pass_fds=(*ends, *flag),
                env=environment(int(request["threads"]), side.variables),
            )  # fmt: skip
        try:
            yield _Child(process, folder, flag[0])
        finally:
            process.kill()
            process.wait()
            for descriptor in flag:
                os.close(descriptor)


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
