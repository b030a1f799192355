"""NVIDIA GPUs by their management library (NVML): who uses them, and what held them back.

All is None where nvidia-ml-py or the driver is missing; nothing is started on the device.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

# Policies whose violations NVML counts in nanoseconds, and how they read.
POLICIES = {
    "NVML_PERF_POLICY_POWER": "its power limit",
    "NVML_PERF_POLICY_THERMAL": "heat",
    "NVML_PERF_POLICY_BOARD_LIMIT": "the board's limit",
    "NVML_PERF_POLICY_RELIABILITY": "its voltage limit",
}


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """The library, initialised; None where it or the driver is missing."""
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def first_visible() -> str:
    """How CUDA_VISIBLE_DEVICES names the device that torch calls cuda:0; empty where it does not.

    A number is a place in the order of the bus here, as with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()


def _device(nvml: Any) -> Any:
    """The device that torch calls cuda:0; NVMLError where there is none."""
    first = first_visible()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)


def processes() -> list[dict[str, Any]] | None:
    """Processes that compute on the GPU: pid, name, MiB; None where nobody can say."""
    with _nvml() as nvml:
        if nvml is None:
            return None
        try:
            found = nvml.nvmlDeviceGetComputeRunningProcesses(_device(nvml))
        except nvml.NVMLError:
            return None
        return [
            {"pid": p.pid, "name": _name(nvml, p.pid), "mib": (p.usedGpuMemory or 0) >> 20}
            for p in found
        ]


def _name(nvml: Any, pid: int) -> str:
    try:
        name = nvml.nvmlSystemGetProcessName(pid)
    except nvml.NVMLError:
        return "unknown"  # of another container, whose processes have no names here
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    return text.split()[0].rpartition("/")[2] if text.split() else "unknown"


def held_back_ns() -> dict[str, int] | None:
    """Nanoseconds for which a limit held the clocks down since the driver began, by the limit."""
    with _nvml() as nvml:
        if nvml is None:
            return None
        try:
            device = _device(nvml)
        except nvml.NVMLError:
            return None
        found = {}
        for policy, words in POLICIES.items():
            try:
                status = nvml.nvmlDeviceGetViolationStatus(device, getattr(nvml, policy))
            except nvml.NVMLError:
                continue  # this device does not count that one
            found[words] = int(status.violationTime)
        return found
