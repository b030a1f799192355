"""How much memory a cell's process may take, so that it fails before the machine suffers.

The limit is RLIMIT_DATA: since Linux 4.7 it counts private writable pages, which is where tensors
lie, and an allocation beyond it fails inside the process, as torch's "can't allocate memory" or
Python's MemoryError. RLIMIT_AS counts reservations too, and torch alone reserves four times what
it writes to. A control group needs rights that users and containers seldom have, and it kills
where RLIMIT_DATA lets the cell say what it wanted. A watchdog would wake while the child is
measured, and a single large allocation is over before it looks.

What the process holds before its cell begins is counted as what is resident, not as what
RLIMIT_DATA counts: libraries map half a GiB more than they ever write to. What may be added to it
is private writable memory; pages of libraries that are read in later are not counted, since they
are shared and the system can drop them, though the process's RSS shows them.

A GPU's memory is limited by torch's own allocator. Its context (a few hundred MiB) is not counted.
"""

import contextlib
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.constants import GIB
from bench.errors import OUT_OF_MEMORY, BadInput
from bench.machine import cgroup

SHARE = 0.9  # of the free memory that a cell may take where nothing is said
STATUS = Path("/proc/self/status")
EVENTS = Path("/proc/vmstat")
OOM_SCORE = Path("/proc/self/oom_score_adj")


@dataclass(frozen=True)
class Limit:
    """What a cell may take of its device's memory, and how the limits are called.

    `bytes` may be resident in the process, or handed out by torch on a GPU; None: there is no
    limit. `words` name the limit of the host's memory, `card` that of the GPU's, where there is
    one.
    """

    bytes: int | None
    words: str
    card: str | None = None

    def name(self, reason: str | None) -> str | None:
        """`reason` with the limit that was met, where memory ran out."""
        if reason is None or not reason.startswith(OUT_OF_MEMORY):
            return reason
        words = self.card if "CUDA" in reason else self.words
        return exceeded(reason, words) if words else reason


def exceeded(reason: str, words: str) -> str:
    """`reason`, which begins with OUT_OF_MEMORY, with what was not enough."""
    return f"{OUT_OF_MEMORY}needed more than {words}; {reason.removeprefix(OUT_OF_MEMORY)}"


def limit_memory(device: str, gib: float | None) -> Limit:
    """Limit this process to `gib`, or to most of what is free; call it once all is imported.

    On a GPU `gib` is of the GPU, and the host's memory has the limit that holds where none is
    given. Raises BadInput where the process holds more already, or where the limit cannot be set.
    """
    with contextlib.suppress(OSError):  # no such file outside Linux
        OOM_SCORE.write_text("1000")  # should memory run out all the same, the kernel ends the cell
    if device != "cuda":
        return _limit_host(gib)
    host = _limit_host(None)
    return Limit(None, host.words) if gib is None else _limit_card(gib, host.words)


def check_limit(gib: float | None, devices: Iterable[str]) -> None:
    """BadInput where the host's memory cannot be limited to `gib` for a cell of `devices`."""
    if gib is not None and sys.platform != "linux" and any(name != "cuda" for name in devices):
        raise BadInput(f"memory_limit_gib={gib:g} works on Linux alone; leave it null here.")


def _limit_host(gib: float | None) -> Limit:
    check_limit(gib, ["cpu"])
    if sys.platform != "linux":
        return Limit(None, "")
    held = int(psutil.Process().memory_info().rss)
    free = int(SHARE * free_bytes())
    most, words = held + free, f"{SHARE:.0%} of the memory that was free ({free / GIB:.1f} GiB)"
    if gib is not None and gib * GIB < most:
        if gib * GIB <= held:
            least = math.ceil(held / GIB * 10) / 10  # one sentence for all cells of a run
            raise BadInput(
                f"memory_limit_gib={gib:g} is less than a cell's process holds before it begins "
                f"(nearly {least:g} GiB); allowed: more than that, or null."
            )
        most, words = int(gib * GIB), f"memory_limit_gib={gib:g}"
    _set(data_bytes() + most - held)
    return Limit(most, words)


def _set(size: int) -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        size = min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (size, hard))


def _limit_card(gib: float, words: str) -> Limit:
    """Limit torch to `gib` of the GPU; a card that has no more than that is limit enough."""
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    if gib * GIB >= total:
        return Limit(None, words)
    torch.cuda.set_per_process_memory_fraction(gib * GIB / total)
    return Limit(int(gib * GIB), words, f"memory_limit_gib={gib:g} of the GPU")


def data_bytes() -> int:
    """What RLIMIT_DATA counts of this process now; 0 where the system does not say."""
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def free_bytes() -> int:
    """What can be taken without swapping, by the machine and by every control group we are in."""
    available, left = int(psutil.virtual_memory().available), cgroup.memory_left()
    return available if left is None else min(available, left)


def room_bytes() -> int:
    """What this process can still take: of what is free, as much as its own limit leaves it."""
    free = free_bytes()
    if sys.platform != "linux":
        return free
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return free if limit == resource.RLIM_INFINITY else min(free, max(limit - data_bytes(), 0))


def kernel_kills() -> int | None:
    """How many processes the kernel has ended for want of memory; None where it does not say."""
    try:
        counts: Mapping[str, str] = dict(x.split() for x in EVENTS.read_text().splitlines())
    except OSError:
        return None
    return int(counts["oom_kill"]) if "oom_kill" in counts else None
