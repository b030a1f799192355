"""Where cells run: the machine, its devices, its packages. Imports no torch."""

import functools
import hashlib
import importlib.metadata
import math
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.errors import BadInput
from bench.machine import cgroup, facts

PACKAGES = (
    "torch",
    "numpy",
    "timm",
    "diffusers",
    "transformers",
    "scikit-learn",
    "scipy",
    "numba",
    "safetensors",
    "hydra-core",
    "rwkv",
    "mamba-ssm",
    "causal-conv1d",
    "flash-attn",
    "flash-linear-attention",
    "triton",
    "peft",
    "datasets",
    "torchvision",
)
# Freed tensors stay in the heap: a fresh large tensor would cost page faults at every step.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}
GIB = 1 << 30


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return os.cpu_count() or 1


def worker_environment(threads: int, *, online: bool = False) -> dict[str, str]:
    """Variables of the workers; what the user has set wins, except for the thread count.

    `online` is for the cells that ask for a data set of the hub: they alone may fetch anything.
    """
    count = str(threads)
    fixed = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "NUMBA_NUM_THREADS": count}
    # The profiler, which watches the allocator, would speak of the GPU that it does not find.
    soft = {**ALLOCATOR, "TOKENIZERS_PARALLELISM": "false", "KINETO_LOG_LEVEL": "99"}
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


@functools.cache
def packages() -> dict[str, str]:
    """Versions of the installed packages that can change a figure."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^(?:model name|Hardware|cpu model)\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


@functools.cache
def gpu() -> dict[str, str] | None:
    """Name and driver of the first NVIDIA GPU by its driver's own tool, or None."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # a tool without a device: there is no GPU to name
    line = done.stdout.strip().splitlines()
    if not line:
        return None
    name, driver, memory = (part.strip() for part in line[0].split(","))
    return {"name": name, "driver": driver, "memory": memory}


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


def load() -> float | None:
    """Processes that wanted to run, over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def describe(threads: int) -> dict[str, Any]:
    """The environment part of a record, but for what the cell's own time and process tell."""
    card = gpu() or {}
    return {
        "machine_key": machine_key(),
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "gpu": card.get("name"),
        "driver": card.get("driver"),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": packages(),
        "threads": threads,
        **facts.describe(),
        "variables": facts.variables(),
        "allocator": {name: worker_environment(threads)[name] for name in ALLOCATOR},
    }


PROBE = """
import torch
print("yes" if torch.cuda.is_available() else
      "torch %s is a CPU build" % torch.__version__ if torch.version.cuda is None else
      "torch %s finds no CUDA device" % torch.__version__)
"""


@functools.cache
def cuda_problem() -> str | None:
    """Why there is no CUDA here, or None where there is; torch is asked in another process."""
    files = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")
    if gpu() is None and not any(Path(path).exists() for path in files):
        return "no NVIDIA device is visible"
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()
        return f"torch could not be asked ({last[-1] if last else 'it died'})"
    answer = done.stdout.strip()
    return None if answer == "yes" else answer


def resolve_device(name: str) -> str:
    """The device of a cell: `auto` becomes what is there, one that is not there is an error."""
    if name == "auto":
        return "cpu" if cuda_problem() else "cuda"
    if name == "cuda" and (problem := cuda_problem()):
        raise BadInput(f"device=cuda is not there: {problem}; allowed here: cpu, auto.")
    return name
