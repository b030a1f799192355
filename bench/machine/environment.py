"""The environment part of a record: the machine, its devices, its packages."""

import functools
import importlib.metadata
import os
import platform
from typing import Any

import psutil

from bench.constants import GIB
from bench.machine import facts
from bench.machine.device import gpu
from bench.machine.key import machine_key
from bench.machine.processor import cores, cpu_name
from bench.machine.variables import ALLOCATOR, SPIN, worker_environment

# What a measured process may run. Not peft, rwkv and datasets, which no cell computes with (of data
# from the hub the hash counts): installing them for the tests would make every result a stale one.
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
    "mamba-ssm",
    "causal-conv1d",
    "flash-attn",
    "flash-linear-attention",
    "triton",
    "torchvision",
)


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


def load() -> float | None:
    """Processes that wanted to run, over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def describe(threads: int) -> dict[str, Any]:
    """The environment part of a record, but for what the cell's own time and process tell."""
    card = gpu() or {}
    given = worker_environment(threads)
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
        "allocator": {k: v for k, v in given.items() if k in ALLOCATOR},
        "spin": {k: v for k, v in given.items() if k in SPIN},
    }
