"""The variables that a measured process is started with."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Freed tensors stay in the heap: a fresh large tensor would cost page faults at every step.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}
# OpenMP's threads spin for more work after a call, ten milliseconds and more, and do so on the time
# of whatever else needs the core: with a partner in turns half a core of noise, and a slowdown of
# 5 % that reads as 10 %. About half a millisecond bridges what lies between two operators. GNU's
# count is of turns of the spin, LLVM's and Intel's time is in milliseconds.
SPIN = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}


def worker_environment(threads: int, *, online: bool = False) -> dict[str, str]:
    """Variables of the workers; what the user has set wins, except for the thread count.

    `online` is for the cells that ask for something of the hub: they alone may fetch anything.
    """
    count = str(threads)
    fixed = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "NUMBA_NUM_THREADS": count}
    # glibc alone reads its allocator's.
    allocator = ALLOCATOR if sys.platform == "linux" else {}
    # The profiler, which watches the allocator, would speak of the GPU that it does not find.
    soft = {**allocator, **SPIN, "TOKENIZERS_PARALLELISM": "false", "KINETO_LOG_LEVEL": "99"}
    soft |= {} if online else {"HF_HUB_OFFLINE": "1"}
    return fixed | {name: os.environ.get(name, value) for name, value in soft.items()}


@contextmanager
def environment_set(values: Mapping[str, str]) -> Iterator[None]:
    """Variables of this process for a while, so that what starts meanwhile inherits them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
