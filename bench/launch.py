"""A fresh process for every cell, from a fork server that has the libraries imported already.

The parent sleeps until the child reports or dies. Results come back as JSON, never as pickles. A
child whose parent dies ends itself: it waits, in a thread, for the pipe to close.

A cell starts a fresh interpreter instead where the user wants it (`isolation=fresh`: children of
one server share its memory layout, so that verdicts count them as one sample), and where it asks
for a data set of the hub: the fork server is offline, and libraries read that when they are
imported.
"""

import faulthandler
import importlib
import json
import multiprocessing
import os
import secrets
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from bench.environment import environment_set, worker_environment
from bench.errors import NO_MEMORY, OUT_OF_MEMORY, BadInput, describe, one_line
from bench.limits import Limit, exceeded, kernel_kills, limit_memory

ROOT = Path(__file__).resolve().parents[1]
TICK_S = 5.0
LOG = "log.txt"
FORK_SERVER, FRESH = "fork server", "fresh interpreter"
TRACEBACK = "traceback.txt"
TIME_OUT = "time-out: "
LAST_WORDS = 1 << 16  # bytes of the log in which a process that died may have said why


@dataclass
class Outcome:
    """How a cell ended. `status` is ok, failed, unsupported or bad_input."""

    status: str
    reason: str | None = None
    payload: dict[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0
    isolation: str | None = None
    layout: str | None = None  # equal for processes that share a memory layout
    limit_bytes: int | None = None  # of memory, as it was in force


class Launcher:
    """Starts one process after another; use as a context."""

    def __init__(
        self, *, preload: Sequence[str], threads: int, worker: str, fresh: bool = False
    ) -> None:
        self.worker = worker
        methods = multiprocessing.get_all_start_methods()
        served = "forkserver" in methods and not fresh
        self.method = "forkserver" if served else "spawn"
        self.layout = secrets.token_hex(8)
        self.context: Any = multiprocessing.get_context(self.method)
        self.threads = threads
        self.environment = worker_environment(threads)
        if self.method == "forkserver":
            self.context.set_forkserver_preload([*preload, worker.partition(":")[0]])
        self._process: Any = None

    def __enter__(self) -> "Launcher":
        """Start the fork server; it imports while the parent goes on."""
        # A cell that is ended leaves its semaphores (a progress bar has one) to the tracker, which
        # removes them and would warn the user of it.
        told = [w for w in (os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker") if w]
        with environment_set({"PYTHONWARNINGS": ",".join(told)}):
            resource_tracker.ensure_running()
        if self.method == "forkserver":
            from multiprocessing import forkserver

            # The server must not find modules in the working directory that we would not.
            paths = [str(ROOT)] if str(ROOT) in sys.path else []
            paths += [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
            safe = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}
            with environment_set(self.environment | safe):
                forkserver.ensure_running()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill the running child, if there is one."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join(10)

    def run(
        self,
        cell: dict[str, Any],
        workdir: Path,
        *,
        timeout: float,
        memory_limit_gib: float | None,
        tick: Callable[[float], None] | None = None,
    ) -> Outcome:
        """Run one cell in a process of its own and wait for it."""
        started, kills = time.monotonic(), kernel_kills()
        log = workdir / LOG
        before = log.stat().st_size if log.exists() else 0
        ours, theirs = self.context.Pipe(duplex=True)
        arguments = (theirs, self.worker, cell, str(workdir), memory_limit_gib)
        online = bool((cell["config"].get("task") or {}).get("hub"))
        context: Any = multiprocessing.get_context("spawn") if online else self.context
        process = context.Process(target=child, args=arguments, name="archbench-cell")
        self._process = process
        with environment_set(worker_environment(self.threads, online=online)):
            process.start()
        theirs.close()
        try:
            message = self._await(ours, process, started + timeout, started, tick)
        finally:
            if process.is_alive():
                process.join(0.2)  # a child that has reported is on its way out
            self.stop()
            ours.close()
        outcome = _outcome(message, timeout)
        if message is None:
            killed = kills is not None and kernel_kills() != kills
            outcome.reason = _death(
                process.exitcode, _last_words(log, before), killed, memory_limit_gib
            )
        served = context.get_start_method() == "forkserver"
        outcome.isolation = FORK_SERVER if served else FRESH
        outcome.layout = self.layout if served else secrets.token_hex(8)
        outcome.wall_s = time.monotonic() - started
        return outcome

    def _await(
        self,
        pipe: Connection,
        process: Any,
        deadline: float,
        started: float,
        tick: Callable[[float], None] | None,
    ) -> bytes | str | None:
        """The child's message, 'timeout', or None where it died without one."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return "timeout"
            ready = wait([pipe, process.sentinel], min(left, TICK_S) if tick else left)
            if pipe in ready or pipe.poll():
                try:
                    return pipe.recv_bytes()
                except (EOFError, ConnectionResetError):
                    process.join(10)
                    return None
            if process.sentinel in ready:
                process.join(10)
                return None
            if tick and not ready:
                tick(time.monotonic() - started)


def _outcome(message: bytes | str | None, timeout: float) -> Outcome:
    if message == "timeout":
        return Outcome("failed", f"{TIME_OUT}not finished after {timeout:g} s")
    if message is None:
        return Outcome("failed")
    value = json.loads(message)
    payload, limit = value.get("payload") or {}, value.get("limit_bytes")
    return Outcome(value["status"], value.get("reason"), payload, limit_bytes=limit)


def _death(code: int | None, log: str, kernel: bool, limit: float | None) -> str:
    """Why a process died; `kernel`: whether it ended any process for want of memory meanwhile."""
    by = signal.Signals(-code).name if code is not None and code < 0 else None
    how = f"the process was ended by {by}" if by else f"the process exited with code {code}"
    said = next((words for words in NO_MEMORY if words in log), None)
    if by == "SIGKILL" and kernel:
        return f"{OUT_OF_MEMORY}{how}, by the kernel for want of memory"
    if said is not None:
        reason = f"{OUT_OF_MEMORY}{how} after it said '{said}'"
        return reason if limit is None else exceeded(reason, f"memory_limit_gib={limit:g}")
    if by is None:
        return f"crash: {how} and no result"
    return f"killed: {how}{', as happens when memory runs out' if by == 'SIGKILL' else ''}"


def _last_words(log: Path, before: int) -> str:
    """The end of what was logged after the first `before` bytes."""
    if not log.exists():
        return ""
    return log.read_bytes()[before:][-LAST_WORDS:].decode(errors="replace")


def child(
    pipe: Connection, worker: str, cell: dict[str, Any], workdir: str, memory_limit: float | None
) -> None:
    """Body of a cell's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    threading.Thread(target=_end_with_parent, args=(pipe, workdir), daemon=True).start()
    log = open(Path(workdir) / LOG, "ab", buffering=0)  # noqa: SIM115  (open while we live)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    faulthandler.enable(log)
    limit = Limit(None, "")
    try:
        module, _, name = worker.partition(":")
        run = getattr(importlib.import_module(module), name)
        limit = limit_memory(cell["config"]["device"]["name"], memory_limit)
        payload = run(cell, Path(workdir))
        status, reason = payload.pop("status", "ok"), limit.name(payload.pop("reason", None))
        result: dict[str, Any] = {"status": status, "reason": reason, "payload": payload}
        result["limit_bytes"] = limit.bytes
        message = json.dumps(result, default=_plain).encode()
    except BadInput as error:
        message = json.dumps({"status": "bad_input", "reason": one_line(str(error))}).encode()
    except BaseException as error:
        Path(workdir, TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
        reason = limit.name(describe(error))
        message = json.dumps({"status": "failed", "reason": reason}).encode()
    sys.stdout.flush()
    sys.stderr.flush()
    pipe.send_bytes(message)
    # Libraries' own exit handlers may hang or crash; the result is out.
    os._exit(0)


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"the worker returned a {type(value).__name__}, which JSON cannot hold")


def _end_with_parent(pipe: Connection, workdir: str) -> None:
    """End with the parent, and leave nothing of the cell that it cannot collect any more."""
    try:
        pipe.recv_bytes()
    except (EOFError, OSError):
        shutil.rmtree(workdir, ignore_errors=True)
        os._exit(1)
