"""Memory of this process as the operating system counts it: resident pages (RSS), in bytes.

It holds what no allocator of torch sees (the interpreter, libraries, numpy, pages that the heap
keeps after a tensor has died), and tells less exactly what a model needs.
"""

from collections.abc import Callable
from pathlib import Path

import psutil

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc_pid_clear_refs(5): the high-water mark becomes what is resident now


def resident_bytes() -> int:
    """What is resident now."""
    return int(psutil.Process().memory_info().rss)


def peak_during(call: Callable[[], object]) -> int | None:
    """The most that was resident while `call` ran.

    None, and `call` is not made, where the high-water mark cannot be reset: outside Linux, and
    where /proc is read-only.
    The mark of the whole life would tell of what was loaded or compiled before.
    """
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return None
    call()
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
