"""The process of one cell: it runs a worker's function and sends what came of it to the parent."""

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.errors import BadInput, describe, one_line
from bench.process.limits import Limit, limit_memory

LOG = "log.txt"
TRACEBACK = "traceback.txt"


def nothing() -> None:
    """Body of a process that shows that the fork server answers."""


def run_child(
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
    limit = Limit(None, "")
    try:
        module, _, name = worker.partition(":")
        work = getattr(importlib.import_module(module), name)
        # What is imported stays. To go through it takes the cycle collector a quarter of a second,
        # and copies a hundred megabytes of pages that were the fork server's.
        gc.freeze()
        limit = limit_memory(cell["config"]["device"]["name"], memory_limit)
        start_s = time.monotonic() - asked  # one clock for all processes of a machine
        payload = work(cell, Path(workdir))
        status, reason = payload.pop("status", "ok"), limit.name(payload.pop("reason", None))
        result: dict[str, Any] = {"status": status, "reason": reason, "payload": payload}
        result |= {"server": server, "start_s": start_s, "limit_bytes": limit.bytes}
        message = json.dumps(result, default=_plain)
    except BadInput as error:
        result = {"status": "bad_input", "reason": one_line(str(error))}
        message = json.dumps(result | {"server": server})
    except BaseException as error:
        result = failure(error, Path(workdir))
        result |= {"reason": limit.name(result["reason"]), "limit_bytes": limit.bytes}
        message = json.dumps(result | {"server": server, "start_s": start_s})
    with contextlib.suppress(OSError):  # the log cannot be written, the result can be sent
        sys.stdout.flush()
        sys.stderr.flush()
    pipe.send_bytes(message.encode())
    # Libraries' own exit handlers may hang or crash; the result is out.
    os._exit(0)


def failure(error: BaseException, workdir: Path) -> dict[str, Any]:
    """What a result says of an error; the traceback is left in `workdir` where that has room."""
    whole = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):  # a full disk, perhaps the very reason
        (workdir / TRACEBACK).write_text(whole, encoding="utf-8", errors="backslashreplace")
    return {"status": "failed", "reason": describe(error)}


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
