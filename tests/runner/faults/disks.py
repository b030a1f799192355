"""Stores on disks that are full, or that cannot be written."""

import contextlib
import ctypes
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.store import Store
from tests.runner.faults.sweep import Sweep, Trial, Unavailable, account, finish

PR_CAPBSET_DROP = 24
LIBC = ctypes.CDLL(None)  # loaded here: nothing may be, between a fork and a program's start
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
NO_SPACE, TOO_LARGE = "No space left on device", "File too large"


def full_disk(folder: Path, draw: random.Random) -> Trial:
    """A disk that fills while the sweep writes to it, at a random byte; then it is made larger."""
    trial = Trial()
    with mounted(folder / "disk", "-t", "tmpfs", "-o", f"size={draw.randrange(12, 180, 4)}k"):
        sweep = Sweep(folder, results=folder / "disk" / "results")
        done = sweep.run()
        trial.before = len(sweep.seen)
        trial.expect(done.code == 2, f"exit code {done.code} on a full disk")
        trial.one_sentence(done, f"results={sweep.results}", NO_SPACE)
        trial.expect(not _leftovers(sweep), f"left behind: {_leftovers(sweep)}")
        account(sweep, trial, sweep.printed(done))
        mount("-o", "remount,size=8m", str(folder / "disk"))
        finish(sweep, trial)
    return trial


def size_limit(folder: Path, draw: random.Random) -> Trial:
    """Writes that the system refuses after some bytes (no mount is needed for it)."""
    sweep, trial = Sweep(folder), Trial()
    sweep.run(seeds=2)
    trial.before = len(sweep.seen)
    most = draw.randrange(60, 4000)  # a record is longer, the worker's log is not
    reader, writer = os.pipe()  # the printed lines are no file, which would be limited too
    process = sweep.start(prepare=lambda: _limit_files(most), stdout=writer)
    os.close(writer)
    with open(reader, "rb") as stream:
        stream.read()
    done = sweep.done(process)
    trial.expect(done.code == 2, f"exit code {done.code} where files may have {most} bytes")
    trial.one_sentence(done, f"results={sweep.results}", TOO_LARGE)
    trial.expect(not _leftovers(sweep), f"left behind: {_leftovers(sweep)}")
    account(sweep, trial)
    finish(sweep, trial)
    return trial


def full_temporary_folder(folder: Path) -> Trial:
    """The worker fills the folder of its own files: its cell fails, and the record says why."""
    sweep, trial = Sweep(folder, seeds=2), Trial()
    with mounted(sweep.temporary, "-t", "tmpfs", "-o", "size=256k"):
        done = sweep.run("model.behaviour=fill")
    _filled(sweep, trial, done.code, NO_SPACE)
    return trial


def large_file_of_worker(folder: Path) -> Trial:
    """The same by a limit on the size of files."""
    sweep, trial = Sweep(folder, seeds=2), Trial()
    done = sweep.run("model.behaviour=fill", prepare=lambda: _limit_files(1 << 20))
    _filled(sweep, trial, done.code, TOO_LARGE)
    return trial


def _filled(sweep: Sweep, trial: Trial, code: int, reason: str) -> None:
    """Seed 0 of each scenario has failed for `reason`; all others have a result."""
    trial.before = len(sweep.seen)
    trial.expect(code == 1, f"exit code {code}")
    failed = [r for r in Store(sweep.results).read_all()[0] if r["status"] == "failed"]
    trial.expect({r["cell"]["seed"] for r in failed} == {0}, "other cells than those failed")
    trial.expect(len(failed) == 2, f"{len(failed)} failed records instead of 2")
    for record in failed:
        trial.names([reason], str(record["reason"]))
    account(sweep, trial, failures=2)


def read_only(folder: Path, how: str) -> Trial:
    """A finished store that is read-only: new cells are refused, what is there can be read."""
    sweep, trial = Sweep(folder, seeds=3), Trial()
    trial.expect(sweep.run().code == 0, "the sweep before")
    trial.before, drawn = len(sweep.seen), len(sweep.ledger())
    protect = {"mount": _protected_by_mount, "permission": _protected_by_permission}[how]
    with protect(sweep.results) as prepare:
        refused = sweep.run(seeds=4, prepare=prepare)
        trial.expect(refused.code == 2, f"exit code {refused.code} of a sweep that must write")
        trial.one_sentence(refused, f"results={sweep.results}", "cannot be written")
        trial.expect(len(sweep.ledger()) == drawn, "a cell was measured that cannot be kept")

        nothing_left = sweep.run(prepare=prepare)
        trial.expect(nothing_left.code == 0, f"with nothing to run: {nothing_left.err[-500:]}")
        trial.expect("6 of 6 cells are finished already" in nothing_left.out, "not said")
        trial.expect("tok/s" in nothing_left.out, "there is no table of finished cells")
        trial.expect(not nothing_left.err, f"stderr: {nothing_left.err[-500:]}")

        output = str(folder / "tables")
        table = sweep.report("table", str(sweep.results), "--output", output, prepare=prepare)
        trial.expect(table.code == 0, f"the table: {table.err[-500:]}")
        trial.expect("tok/s" in table.out, "the table is empty")
    account(sweep, trial, whole=True)
    return trial


def unlistable(folder: Path) -> Trial:
    """A store that may be written but not listed: nothing is measured a second time."""
    sweep, trial = Sweep(folder, seeds=1), Trial()
    prepare = permissions_bind(folder)
    trial.expect(sweep.run().code == 0, "the sweep before")
    trial.before, drawn = len(sweep.seen), len(sweep.ledger())
    for path in (sweep.results / "records", sweep.results):
        path.chmod(0o200 if path == sweep.results else 0o300)
        refused = sweep.run(prepare=prepare)
        path.chmod(0o755)
        trial.expect(refused.code == 2, f"exit code {refused.code}")
        trial.one_sentence(refused, f"results={sweep.results}", "cannot be listed")
    trial.expect(len(sweep.ledger()) == drawn, "finished cells were measured again")
    account(sweep, trial, whole=True)
    return trial


def without_override() -> None:
    """Let permissions bind root too, in the program that is started next."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def permissions_bind(folder: Path) -> Callable[[], None] | None:
    """What to call before a program for which the folder's permissions shall hold.

    Raises Unavailable where they would not.
    """
    prepare = without_override if os.geteuid() == 0 else None
    secret = folder / "secret"
    secret.touch(mode=0o000)
    code = f"open({str(secret)!r})"
    done = subprocess.run([sys.executable, "-c", code], preexec_fn=prepare, capture_output=True)
    secret.unlink()
    if done.returncode == 0 or b"PermissionError" not in done.stderr:
        raise Unavailable("permissions do not bind this user")
    return prepare


@contextlib.contextmanager
def _protected_by_permission(results: Path) -> Iterator[Callable[[], None] | None]:
    prepare = permissions_bind(results.parent)
    folders = (results / "records", results / "artefacts", results)
    for path in folders:
        path.chmod(0o555)
    try:
        yield prepare
    finally:
        for path in folders:
            path.chmod(0o755)


@contextlib.contextmanager
def _protected_by_mount(results: Path) -> Iterator[None]:
    with mounted(results, "--bind", str(results)):
        mount("-o", "remount,bind,ro", str(results))
        yield None


@contextlib.contextmanager
def mounted(point: Path, *words: str) -> Iterator[None]:
    """Something mounted at a folder for a while; Unavailable where this user may not mount."""
    point.mkdir(exist_ok=True)
    source = () if "--bind" in words else ("tmpfs",)
    mount(*words, *source, str(point))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True, capture_output=True)


def mount(*words: str) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        raise Unavailable("only root on Linux can mount a file system")
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"nothing can be mounted here ({done.stderr.strip()})")


def _limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _leftovers(sweep: Sweep) -> list[str]:
    """What a write that failed must not leave: temporary files, folders without a record."""
    found = [str(path) for path in sweep.results.rglob("*.tmp")]
    whole = {path.stem for path in sweep.results.glob("records/*.json")}
    folders = [path for path in sweep.results.glob("artefacts/*") if path.name not in whole]
    return found + [str(path) for path in folders]
