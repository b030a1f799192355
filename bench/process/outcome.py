"""How a cell's process ended, and why one that sent nothing died."""

import json
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import NO_MEMORY, OUT_OF_MEMORY
from bench.process.limits import exceeded

TIME_OUT = "time-out: "
LAST_WORDS = 1 << 16  # bytes of the log in which a process that died may have said why
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
    limit_bytes: int | None = None  # of the device's memory, as it was in force

    def process(self) -> dict[str, Any]:
        """What the environment part of a record says of the cell's process."""
        times = ("server_s", "start_s", "parent_cpu_s")
        seconds = {name: getattr(self, name) for name in times}
        rounded = {name: None if s is None else round(s, 4) for name, s in seconds.items()}
        return {"isolation": self.isolation, "layout": self.layout, **rounded}

    @staticmethod
    def read(message: bytes) -> "Outcome":
        """What a process sent (`bench.process.child`)."""
        value = json.loads(message)
        sent = {name: value.get(name) for name in ("reason", "server", "start_s", "limit_bytes")}
        return Outcome(value["status"], payload=value.get("payload") or {}, **sent)


@dataclass(frozen=True)
class Death:
    """A process that ended and sent nothing: its exit code, and what tells why.

    `kernel` says whether the kernel ended any process for want of memory meanwhile, `served`
    whether a fork server had started it.
    """

    code: int | None
    log: str
    kernel: bool
    served: bool

    def reason(self, memory_limit_gib: float | None) -> str:
        """Why it died, in words."""
        code = self.code
        by = _name(-code) if code is not None and code < 0 else None
        how = f"the process was ended by {by}" if by else f"the process exited with code {code}"
        said = next((words for words in NO_MEMORY if words in self.log), None)
        if by == "SIGKILL" and self.kernel:
            return f"{OUT_OF_MEMORY}{how}, by the kernel for want of memory"
        if said is not None:
            reason = f"{OUT_OF_MEMORY}{how} after it said '{said}'"
            limit = memory_limit_gib
            return reason if limit is None else exceeded(reason, f"memory_limit_gib={limit:g}")
        if self.served and code == UNKNOWN:
            return SERVER_DIED
        if by is None:
            return f"crash: {how} and no result"
        return f"killed: {how}{', as happens when memory runs out' if by == 'SIGKILL' else ''}"


def _name(number: int) -> str:
    """A signal's name; those between the first and the last real-time signal have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_words(log: Path, before: int) -> str:
    """The end of what was logged after the first `before` bytes."""
    if not log.exists():
        return ""
    return log.read_bytes()[before:][-LAST_WORDS:].decode(errors="replace")
