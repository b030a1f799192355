"""A fresh process for every cell, from a fork server that has the libraries imported already.

The parent sleeps until the child reports or dies. Results come back as JSON, never as pickles. A
child whose parent dies ends itself: it waits, in a thread, for the pipe to close.

A cell starts a fresh interpreter instead where the user wants it (`isolation=fresh`: children of
one server share its memory layout, so that verdicts count them as one sample), and where it asks
for a data set of the hub: the fork server is offline, and libraries read that when they are
imported.
"""

import contextlib
import faulthandler
import importlib
import json
import multiprocessing
import os
import secrets
import shutil
import signal
import sys
import tempfile
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
from bench.errors import BadInput, describe, one_line

ROOT = Path(__file__).resolve().parents[1]
TICK_S = 5.0
LOG = "log.txt"
FORK_SERVER, FRESH = "fork server", "fresh interpreter"
TRACEBACK = "traceback.txt"
SOCKET_FOLDER = 70  # of the 104 to 108 bytes of a socket's name, the end is multiprocessing's
UNKNOWN = 255  # what multiprocessing says of a child whose fork server died before it
SERVER_DIED = "crash: the process ended without a result, or the fork server that starts it died"


@dataclass
class Outcome:
    """How a cell ended. `status` is ok, failed, unsupported or bad_input."""

    status: str
    reason: str | None = None
    payload: dict[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0
    isolation: str | None = None
    layout: str | None = None  # equal for processes that share a memory layout
    server: int | None = None  # the process that had started this one
    start_s: float | None = None  # from our request to the worker's first own line
    server_s: float | None = None  # until the fork server had imported everything
    parent_cpu_s: float | None = None  # what this process used while the cell ran

    def process(self) -> dict[str, Any]:
        """What the environment part of a record says of the cell's process."""
        times = ("server_s", "start_s", "parent_cpu_s")
        seconds = {name: getattr(self, name) for name in times}
        rounded = {name: None if s is None else round(s, 4) for name, s in seconds.items()}
        return {"isolation": self.isolation, "layout": self.layout, **rounded}


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
        self._server: int | None = None
        self.context: Any = multiprocessing.get_context(self.method)
        self.threads = threads
        self.environment = worker_environment(threads)
        if self.method == "forkserver":
            self.context.set_forkserver_preload([*preload, worker.partition(":")[0]])
        self._process: Any = None
        self._begun = 0.0
        self._server_s: float | None = None

    def __enter__(self) -> "Launcher":
        """Start the fork server; it imports while the parent goes on."""
        self._begun = time.monotonic()
        # A cell that is ended leaves its semaphores (a progress bar has one) to the tracker, which
        # removes them and would warn the user of it.
        told = [w for w in (os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker") if w]
        with environment_set({"PYTHONWARNINGS": ",".join(told)}):
            resource_tracker.ensure_running()
        self._serve()
        return self

    def _serve(self) -> None:
        """See that the fork server runs: one that died (for want of memory, say) starts again."""
        if self.method != "forkserver":
            return
        from multiprocessing import forkserver

        # The server must not find modules in the working directory that we would not.
        paths = [str(ROOT)] if str(ROOT) in sys.path else []
        paths += [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
        safe = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}
        try:
            with environment_set(self.environment | safe):
                forkserver.ensure_running()
        except OSError as error:
            if "AF_UNIX" not in str(error):
                raise
            raise BadInput(
                f"TMPDIR={tempfile.gettempdir()} is too long for the name of a socket in it; "
                f"allowed: a folder whose path has about {SOCKET_FOLDER} bytes at most."
            ) from error

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ready(self, timeout: float) -> None:
        """Wait until the fork server has imported everything: that is no part of the first cell."""
        if self.method != "forkserver" or self._server_s is not None:
            return
        process = self.context.Process(target=_nothing, name="archbench-ready")
        try:
            self._serve()
            process.start()
        except (EOFError, ConnectionError):
            return  # the server died: the cell that is started next tells it
        self._process = process
        process.join(timeout)
        self._server_s = time.monotonic() - self._begun

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
        online = bool((cell["config"].get("task") or {}).get("hub"))
        context: Any = multiprocessing.get_context("spawn") if online else self.context
        if context is self.context:
            self.ready(timeout)
        started, used = time.monotonic(), time.process_time()
        ours, theirs = self.context.Pipe(duplex=True)
        arguments = (theirs, self.worker, cell, str(workdir), memory_limit_gib, started)
        process = context.Process(target=child, args=arguments, name="archbench-cell")
        self._process = process
        served = context.get_start_method() == "forkserver"
        try:
            self._serve()
            with environment_set(worker_environment(self.threads, online=online)):
                process.start()
            theirs.close()
            message = self._await(ours, process, started + timeout, started, tick)
            outcome = _outcome(message, process, timeout, served=served)
        except (EOFError, ConnectionError):
            outcome = Outcome("failed", SERVER_DIED)
        finally:
            if process.is_alive():
                process.join(0.2)  # a child that has reported is on its way out
            self.stop()
            if served and process.exitcode == UNKNOWN:
                _end_orphan(process.pid)
            theirs.close()
            ours.close()
        outcome.isolation = FORK_SERVER if served else FRESH
        outcome.layout = self._layout(outcome.server) if served else secrets.token_hex(8)
        outcome.server_s = self._server_s if served else None
        outcome.wall_s = time.monotonic() - started
        outcome.parent_cpu_s = time.process_time() - used
        return outcome

    def _layout(self, server: int | None) -> str:
        """The name of the memory layout that children of `server` share."""
        if server is not None:
            if self._server not in (server, None):
                self.layout = secrets.token_hex(8)  # another server than that of earlier cells
            self._server = server
        return self.layout

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


def _end_orphan(pid: int) -> None:
    """End a child that outlived its fork server, before it tidies up what we still collect."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _outcome(message: bytes | str | None, process: Any, timeout: float, *, served: bool) -> Outcome:
    if message == "timeout":
        return Outcome("failed", f"time-out: not finished after {timeout:g} s")
    if message is None:
        return Outcome("failed", _death(process.exitcode, served=served))
    value = json.loads(message)
    payload = value.get("payload") or {}
    return Outcome(
        value["status"], value.get("reason"), payload,
        server=value["server"], start_s=value.get("start_s"),
    )  # fmt: skip


def _death(code: int | None, *, served: bool) -> str:
    if served and code == UNKNOWN:
        return SERVER_DIED
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        memory = ", as happens when memory runs out" if name == "SIGKILL" else ""
        return f"killed: the process was ended by {name}{memory}"
    return f"crash: the process exited with code {code} and no result"


def _nothing() -> None:
    """Body of a process that shows that the fork server answers."""


def child(
    pipe: Connection,
    worker: str,
    cell: dict[str, Any],
    workdir: str,
    memory_limit: float | None,
    asked: float,
) -> None:
    """Body of a cell's process; `asked` is when the parent wanted it, by the monotonic clock."""
    server, start_s = os.getppid(), None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    threading.Thread(target=_end_with_parent, args=(pipe, workdir), daemon=True).start()
    log = open(Path(workdir) / LOG, "ab", buffering=0)  # noqa: SIM115  (open while we live)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    faulthandler.enable(log)
    try:
        if memory_limit is not None:
            _limit_memory(memory_limit)
        module, _, name = worker.partition(":")
        work = getattr(importlib.import_module(module), name)
        start_s = time.monotonic() - asked  # one clock for all processes of a machine
        payload = work(cell, Path(workdir))
        status, reason = payload.pop("status", "ok"), payload.pop("reason", None)
        result: dict[str, Any] = {"status": status, "reason": reason, "payload": payload}
        message = json.dumps(result | {"server": server, "start_s": start_s}, default=_plain)
    except BadInput as error:
        result = {"status": "bad_input", "reason": one_line(str(error))}
        message = json.dumps(result | {"server": server})
    except BaseException as error:
        result = {"status": "failed", "reason": describe(error)}
        message = json.dumps(result | {"server": server, "start_s": start_s})
        with contextlib.suppress(OSError):  # a full disk, perhaps the very reason
            Path(workdir, TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
    with contextlib.suppress(OSError):  # the log cannot be written, the result can be sent
        sys.stdout.flush()
        sys.stderr.flush()
    pipe.send_bytes(message.encode())
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


def _limit_memory(gib: float) -> None:
    if sys.platform != "linux":
        raise BadInput(f"memory_limit_gib={gib} works on Linux alone; leave it null here.")
    import resource

    size = int(gib * (1 << 30))
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
