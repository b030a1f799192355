"""The machine key: figures are compared within one alone."""

import functools
import hashlib
import math
import platform
from collections.abc import Mapping
from pathlib import Path

import psutil

from bench.machine import cgroup
from bench.machine.device import gpu
from bench.machine.processor import cores, cpu_name


@functools.cache
def machine_key() -> str:
    """Names this machine and no other; a hash, which tells nothing about it.

    What goes into it: the processor's name, the processors that this process may use, the size of
    the memory, the architecture, systemd's machine id where there is one, and the GPU's name. What
    does not, so that a reboot, an update of the kernel or a driver and another host name leave it
    as it is: everything else. Fewer processors (`taskset`, another size of a virtual machine) are
    another machine.
    """
    return key_of(machine_parts())


def machine_parts() -> dict[str, str]:
    """The parts of the machine key by name."""
    return {
        "processor": cpu_name(),
        "cores": str(cores()),
        "memory": str(memory_class(psutil.virtual_memory().total)),
        "architecture": platform.machine(),
        "machine id": cgroup.read(Path("/etc/machine-id")) or "",
        "gpu": (gpu() or {}).get("name", ""),
    }


def key_of(parts: Mapping[str, str]) -> str:
    """The first 16 hexadecimal digits of a hash of `parts`."""
    text = "\n".join(f"{name}={value}" for name, value in sorted(parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def memory_class(total: int) -> int:
    """A memory of `total` bytes in steps of a quarter of an octave.

    A kernel keeps 1 to 4 % of the memory for itself, another version another share, so that GiB
    would flip at a rounding edge. The edges of these steps lie far from sizes that are sold: 1,
    1.125, 1.25, 1.5, 1.75 and 1.875 times a power of two, less that share.
    """
    return round(4 * math.log2(total) - 0.2)
