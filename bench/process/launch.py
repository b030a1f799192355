"""A fresh process for every cell, from a fork server that has the libraries imported already.

The parent sleeps until the child reports or dies. Results come back as JSON, never as pickles. A
child whose parent dies ends itself: it waits, in a thread, for the pipe to close.

A cell starts a fresh interpreter instead where the user wants it (`isolation=fresh`: children of
one server share its memory layout, so that verdicts count them as one sample), and where it asks
for something of the hub (`on_hub`): the fork server is offline, and libraries read that when they
are imported.
"""

import contextlib
import multiprocessing
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from bench.constants import ROOT
from bench.errors import BadInput
from bench.machine.variables import environment_set, worker_environment
from bench.process.child import LOG, nothing, run_child
from bench.process.limits import kernel_kills
from bench.process.outcome import SERVER_DIED, TIME_OUT, UNKNOWN, Death, Outcome, last_words

TICK_S = 5.0
ENDING_S = 1.0  # within which a fork server that was killed is gone, so that another can start
FORK_SERVER, FRESH = "fork server", "fresh interpreter"
SOCKET_FOLDER = 70  # of the 104 to 108 bytes of a socket's name, the end is multiprocessing's
TIMED_OUT = "timed out"


class Launcher:
    """Starts one process after another; use as a context."""

    def __init__(
        self, *, preload: Sequence[str], threads: int, worker: str, fresh: bool = False
    ) -> None:
        self.worker = worker
        # On a Mac, too, processes can fork, but not once the system's frameworks are loaded.
        forks = "forkserver" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
        served = forks and not fresh
        self.method = "forkserver" if served else "spawn"
        self.layout = secrets.token_hex(8)
        self._server: int | None = None
        self.context: Any = multiprocessing.get_context(self.method)
        self.threads = threads
        self.environment = worker_environment(threads)
        if self.method == "forkserver":
            self.context.set_forkserver_preload([*preload, worker.partition(":")[0]])
            self.environment |= _safe_path()
        self._process: Any = None
        self._begun: float | None = None  # when the server was started
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

        try:
            with environment_set(self.environment):
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
        now = time.monotonic()
        begun = now if self._begun is None else self._begun
        while (process := self._try_server()) is None:
            if time.monotonic() > now + ENDING_S:
                return  # the server died: the cell that is started next tells it
            time.sleep(0.02)
        self._process = process
        process.join(timeout)
        self._server_s = time.monotonic() - begun

    def _try_server(self) -> Any:
        """A process that shows that the fork server answers; None where that one is dying."""
        process = self.context.Process(target=nothing, name="archbench-ready")
        try:
            self._start(process, self.environment)
        except (EOFError, ConnectionError):
            return None
        return process

    def _start(self, process: Any, environment: Mapping[str, str]) -> None:
        """Start `process`; a server that died a moment ago starts in the environment as well."""
        self._serve()
        with environment_set(environment):
            process.start()

    def kill(self) -> None:
        """Kill the running child, if there is one, and wait for nothing: for signal handlers."""
        if self._process is not None and self._process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def stop(self) -> None:
        """Kill the running child, if there is one, and see it end."""
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
        online = on_hub(cell["config"])
        context: Any = multiprocessing.get_context("spawn") if online else self.context
        served = context.get_start_method() == "forkserver"
        if served:
            self.ready(timeout)
        started, used, kills = time.monotonic(), time.process_time(), kernel_kills()
        log = workdir / LOG
        logged = log.stat().st_size if log.exists() else 0
        ours, theirs = self.context.Pipe(duplex=True)
        arguments = (theirs, self.worker, cell, str(workdir), memory_limit_gib, started)
        process = context.Process(target=run_child, args=arguments, name="archbench-cell")
        self._process = process
        try:
            environment = worker_environment(self.threads, online=True) if online else None
            self._start(process, environment or self.environment)
            theirs.close()
            message = self._await(ours, process, started + timeout, started, tick)
        except (EOFError, ConnectionError):
            outcome = Outcome("failed", SERVER_DIED)
        else:
            if isinstance(message, bytes):
                outcome = Outcome.read(message)
            elif message == TIMED_OUT:
                outcome = Outcome("failed", f"{TIME_OUT}not finished after {timeout:g} s")
            else:
                killed = kills is not None and kernel_kills() != kills
                death = Death(process.exitcode, last_words(log, logged), killed, served)
                outcome = Outcome("failed", death.reason(memory_limit_gib))
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
        if outcome.reason == SERVER_DIED:
            self._begun = self._server_s = None  # the next cell waits for another, off its clock
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
        """The child's message, `TIMED_OUT`, or None where it died without one."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return TIMED_OUT
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


def on_hub(config: Mapping[str, Any]) -> bool:
    """Whether a cell asks for what the hub has: a data set, a model, or the harness's own tasks."""
    checkpoint = (config.get("model") or {}).get("pretrained")
    return (
        bool((config.get("task") or {}).get("hub"))
        or bool(checkpoint and not Path(str(checkpoint)).expanduser().exists())
        or bool((config.get("scenario") or {}).get("own_tasks"))
    )


def _safe_path() -> dict[str, str]:
    """Variables by which the server finds no modules in the working directory that we would not."""
    paths = [str(ROOT)] if str(ROOT) in sys.path else []
    paths += [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}


def _end_orphan(pid: int) -> None:
    """End a child that outlived its fork server, before it tidies up what we still collect."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
