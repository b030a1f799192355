"""Sweeps that are killed, interrupted, cut off from their reader, or not alone."""

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench.store import Store
from tests.runner.conftest import Done
from tests.runner.faults.sweep import PATIENCE_S, Sweep, Trial, account, finish, no_orphans

KILLED = -signal.SIGKILL
# What the sweep may end with besides 130. Before its own handler stands, Python's or the system's
# ends it; and where an interrupt was raised inside a string that was being executed (a dataclass in
# the making), CPython ends by SIGINT whatever caught it since. A shell shows 130 then, too.
CODES = (130, -signal.SIGINT, -signal.SIGTERM)


def duration(folder: Path) -> float:
    """Seconds that an undisturbed sweep takes here."""
    started = time.monotonic()
    done = Sweep(folder).run()
    assert done.code == 0, done.err
    return time.monotonic() - started


def during(
    folder: Path, draw: random.Random, span: float, strike: Callable[[int], bool]
) -> tuple[Sweep, "subprocess.Popen[bytes]"]:
    """A sweep that was struck at a random instant while it ran, and its process.

    `strike` is given the process and says whether it struck; one that came too late is drawn again.
    """
    for _ in range(20):
        sweep = Sweep(Path(tempfile.mkdtemp(dir=folder)))
        process = sweep.start()
        if sweep.watch(process, draw.uniform(0.0, span)):
            while process.poll() is None:
                sweep.look()
                if strike(process.pid):
                    return sweep, process
        sweep.done(process)
    raise AssertionError("no instant was inside the sweep")


def kill(folder: Path, whom: str, draw: random.Random, span: float) -> Trial:
    """SIGKILL of the group, the parent, the worker or the fork server; then the sweep again."""
    sweep, process = during(folder, draw, span, lambda pid: _kill(pid, whom))
    trial = Trial(before=len(sweep.seen))
    goes_on = whom in ("worker", "fork server")
    if goes_on:
        sweep.watch(process, PATIENCE_S)
    done = sweep.done(process)
    no_orphans(process.pid, trial)
    account(sweep, trial, sweep.printed(done), failures=1 if goes_on else 0)
    if goes_on:
        _costs_one_cell(sweep, trial, done, whom)
        trial.expect("Traceback" not in done.err, f"a traceback: {done.err[-800:]}")
    else:
        trial.expect(done.code == KILLED, f"exit code {done.code} of a killed sweep")
    finish(sweep, trial, failures=1 if goes_on else 0)
    return trial


def _costs_one_cell(sweep: Sweep, trial: Trial, done: Done, whom: str) -> None:
    """A sweep that lost a process of its own goes on, and its record says what happened."""
    failed = [r for r in Store(sweep.results).read_all()[0] if r["status"] != "ok"]
    sentence = f"exit code {done.code} with {len(failed)} failed cells: {done.err[-500:]}"
    trial.expect(done.code == (1 if failed else 0), sentence)
    trial.expect(
        len(sweep.finished()) + len(failed) == len(sweep.cells()), "the sweep did not go on"
    )
    word = "SIGKILL" if whom == "worker" else "fork server"
    for record in failed:
        trial.names([word], str(record["reason"]))


def _kill(parent: int, whom: str) -> bool:
    """Kill one of the sweep's processes; False where it is not there yet."""
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        if whom == "group":
            os.killpg(parent, signal.SIGKILL)
            return True
        found = parent if whom == "parent" else _server(parent)
        if found and whom == "worker":
            children = psutil.Process(found).children()
            found = children[0].pid if children else None
        if found:
            os.kill(found, signal.SIGKILL)
            return True
    return False


def _server(parent: int) -> int | None:
    for child in psutil.Process(parent).children():
        if "forkserver" in " ".join(child.cmdline()):
            return child.pid
    return None


def interrupt(
    folder: Path, number: signal.Signals, draw: random.Random, span: float, *, group: bool
) -> Trial:
    """A polite signal, to the parent or as a terminal sends it to the group; then again."""

    def strike(pid: int) -> bool:
        (os.killpg if group else os.kill)(pid, number)
        return True

    sweep, process = during(folder, draw, span, strike)
    trial = Trial(before=len(sweep.seen))
    sweep.watch(process, PATIENCE_S)
    done = sweep.done(process)
    no_orphans(process.pid, trial)
    # A signal that comes when the last cell is done finds nothing to interrupt but the table.
    allowed = (*CODES, 0) if len(sweep.finished()) == len(sweep.cells()) else CODES
    trial.expect(done.code in allowed, f"exit code {done.code} after {number.name}: {done.err}")
    if done.code == 130:
        trial.names(["every finished record is kept"], done.err)
        trial.expect("Traceback" not in done.err, f"a traceback: {done.err[-800:]}")
    failures = 1 if group else 0  # the cell that the group's signal reached first
    account(sweep, trial, sweep.printed(done), failures=failures)
    finish(sweep, trial, failures=failures)
    return trial


def reader_gone(folder: Path) -> Trial:
    """`| head -1`: whoever reads the sweep's lines goes after the first."""
    sweep, trial = Sweep(folder, seeds=3), Trial()
    ours, theirs = os.pipe()
    process = sweep.start(stdout=theirs)
    os.close(theirs)
    with open(ours, "rb") as stream:
        first = stream.readline()
    sweep.look()
    trial.before = len(sweep.seen)
    trial.expect(first.startswith(b"[1/6] fake"), f"the first line is {first!r}")
    sweep.watch(process, PATIENCE_S)
    done = sweep.done(process)
    no_orphans(process.pid, trial)
    trial.expect(done.code == 1, f"exit code {done.code}")
    trial.expect(not done.err, f"stderr is not empty: {done.err[-500:]!r}")
    account(sweep, trial)
    finish(sweep, trial)
    return trial


def two_at_once(folder: Path, delay: float = 0.0) -> Trial:
    """Two sweeps into one store: what either has measured is kept, under an id of its own."""
    sweep, trial = Sweep(folder, seeds=4), Trial()
    first = sweep.start()
    sweep.watch(first, delay)
    trial.before = len(sweep.seen)
    second = sweep.start()
    sweep.watch(first, PATIENCE_S)
    sweep.watch(second, PATIENCE_S)
    for process in (first, second):
        done = sweep.done(process)
        trial.expect(done.code == 0, f"exit code {done.code}: {done.err[-500:]}")
        no_orphans(process.pid, trial)
        account(sweep, trial, sweep.printed(done), whole=True, once=False)
    records, _ = Store(sweep.results).read_all()
    ids = {record["id"] for record in records}
    trial.expect(len(ids) == len(records), "an id is there twice")
    kept = {str((r.get("seen") or {}).get("draw")) for r in records}
    trial.lost += [f"measured, no record: {p}" for p in sweep.ledger() if p[0] not in kept]
    drawn = len(sweep.ledger())
    finish(sweep, trial, once=False)
    trial.expect(len(sweep.ledger()) == drawn, "finished cells were measured again")
    return trial
