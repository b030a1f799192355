"""Joules of a window of repeated calls, from counters in the hardware, through zeus.

RAPL counts what a processor's package and its memory use, NVML what a GPU uses. Both count whatever
runs there, and the idle power too. Their counters move every 1 to 100 ms, so a window is seconds
long. What cannot be read is missing and says why; nothing is estimated from a model of the power,
and nothing but this machine is asked.
"""

import contextlib
import importlib.metadata
import math
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psutil
import torch

from bench.errors import one_line
from bench.meters.waiting import wait_for

WINDOW_S = 2.0
BLOCK_S = 0.2  # of calls between two looks at the clock
KEY = "archbench"
SMALL = "dram"  # the domain without which the others' sum still says something
WHOLE = "psys"  # a RAPL zone of the whole board, which holds the packages: they would count twice
REMOTE = "ZEUSD_HOST_PORT"  # of zeus's daemon on another machine
SETTLED_S = 0.3  # without processor time, after which a helper process of zeus has gone to sleep
PATIENCE_S = 20.0
_NOTHING: dict[str, Any] = {"joules": None, "joules_per_item": None, "domains": None}


class Monitor(Protocol):
    """As much of `zeus.monitor.ZeusMonitor` as is used here."""

    def begin_window(self, key: str) -> None: ...
    def end_window(self, key: str) -> Any: ...


@dataclass(frozen=True)
class Counters:
    """An open monitor, or the reasons for which there is none."""

    monitor: Monitor | None
    source: str = ""
    reasons: Sequence[str] = field(default=())


def measure_energy(
    call: Callable[[], object],
    median_s: float,
    items: int,
    device: torch.device,
    before: Callable[[], object] = lambda: None,
    counters: Callable[[torch.device], contextlib.AbstractContextManager[Counters]] | None = None,
) -> dict[str, Any]:
    """The `energy` section of a record for calls of about `median_s` that handle `items` each.

    What `before` does to prepare a call lies in the window, too.
    """
    with (counters or open_counters)(device) as found:
        if found.monitor is None:
            return {**_NOTHING, "reason": "; ".join(found.reasons)}
        calls = 0
        block = max(1, math.ceil(BLOCK_S / max(median_s, 1e-9)))
        found.monitor.begin_window(KEY)
        begin = time.monotonic()
        while time.monotonic() - begin < WINDOW_S:
            for _ in range(block):
                before()
                call()
            calls += block
            wait_for(device)  # what was only queued has used nothing yet
        measured = found.monitor.end_window(KEY)
    domains = _domains(measured)
    still = [name for name, joules in domains.items() if joules <= 0]
    moved = {name: joules for name, joules in domains.items() if joules > 0}
    reasons = [*found.reasons, *(f"the counter of {name} did not move" for name in still)]
    section = {
        **_NOTHING,
        "window_s": measured.time,
        "calls": calls,
        "source": found.source,
        "reason": "; ".join(reasons) or None,
    }
    if not moved or any(not name.startswith(SMALL) for name in still):
        return section  # a sum without a package or a GPU would pass for the whole
    joules = sum(moved.values())
    return {
        **section,
        "joules": joules,
        "joules_per_item": joules / (calls * items),
        "domains": moved,
    }


def _domains(measured: Any) -> dict[str, float]:
    """Joules by what used them, of a `zeus.monitor.energy.Measurement`."""
    parts = {"gpu": measured.gpu_energy, "cpu": measured.cpu_energy, "dram": measured.dram_energy}
    return {
        f"{name} {index}": float(joules)
        for name, by_index in parts.items()
        for index, joules in (by_index or {}).items()
    }


@contextlib.contextmanager
def open_counters(device: torch.device) -> Iterator[Counters]:
    """zeus's monitor of the GPU of a CUDA cell and of all processors that can be read.

    Its helper processes (RAPL's counters wrap around; one watches each) are asleep when the window
    begins and are ended with it: a cell's process ends without its exit handlers.
    """
    try:
        import zeus.monitor
    except ImportError as error:
        yield Counters(None, reasons=[f"zeus cannot be imported ({error}); install extra energy"])
        return
    if REMOTE in os.environ:
        yield Counters(None, reasons=[f"{REMOTE} is set, and no other machine is asked"])
        return
    gpus, gpu_reasons = _gpus() if device.type == "cuda" else ([], [])
    cpus, cpu_reasons = _cpus()
    reasons = [*gpu_reasons, *cpu_reasons]
    if device.type == "cuda" and not gpus:
        cpus = []  # the processor's share alone would pass for the whole
    if not gpus and not cpus:
        yield Counters(None, reasons=reasons)
        return
    names = [word for word, there in (("NVML", gpus), ("RAPL", cpus)) if there]
    source = f"{' and '.join(names)} by zeus {importlib.metadata.version('zeus')}"
    before = set(multiprocessing.active_children())
    try:
        monitor = zeus.monitor.ZeusMonitor(gpu_indices=gpus, cpu_indices=cpus)
        with warnings.catch_warnings():
            # That so short a window holds no joule.
            warnings.filterwarnings("ignore", message="The energy consumption of one or more GPUs")
            monitor.begin_window(KEY)  # starts the helpers
            monitor.end_window(KEY)
        _settle([c.pid for c in multiprocessing.active_children() if c not in before])
        yield Counters(monitor, source, reasons)
    finally:
        for helper in multiprocessing.active_children():
            if helper not in before:
                helper.terminate()
                helper.join(5)


def _gpus() -> tuple[list[int], list[str]]:
    """The first GPU as torch counts them, where its energy can be read, else why not."""
    from zeus.device import get_gpus
    from zeus.exception import ZeusBaseError

    try:
        gpus = get_gpus()
        gpus.get_total_energy_consumption(0)
    except (ZeusBaseError, ImportError, OSError) as error:
        return [], [f"GPU: {_sentence(error)}"]
    return [0], []


def _cpus() -> tuple[list[int], list[str]]:
    """Packages whose counters can be read, else why not."""
    from zeus.device import get_cpus
    from zeus.device.cpu.common import ZeusCPUInitError, ZeusCPUNoPermissionError
    from zeus.device.cpu.rapl import RAPL_DIR, rapl_is_available
    from zeus.exception import ZeusBaseError

    if not rapl_is_available():
        return [], [f"CPU: there is no RAPL counter ({RAPL_DIR} is missing)"]
    try:
        found = get_cpus().cpus
    except ZeusCPUNoPermissionError:
        return [], [f"CPU: the RAPL counters may be read by root alone ({RAPL_DIR})"]
    except (ZeusBaseError, ZeusCPUInitError, OSError) as error:
        return [], [f"CPU: {_sentence(error)}"]
    names = [getattr(getattr(cpu, "rapl_file", None), "name", "") for cpu in found]
    packages = [index for index, name in enumerate(names) if not name.startswith(WHOLE)]
    return packages, [] if packages else [f"CPU: {RAPL_DIR} has no zone of a package"]


def _sentence(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__


def _settle(pids: Sequence[int | None]) -> None:
    """Wait until the helpers have started and gone to sleep."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        first = _processor_s(pids)
        time.sleep(SETTLED_S)
        second = _processor_s(pids)
        if all(a == b and b > 0 for a, b in zip(first, second, strict=True)):
            return


def _processor_s(pids: Sequence[int | None]) -> list[float]:
    found = []
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            found.append(math.inf)  # it has ended, and disturbs no more
        else:
            found.append(times.user + times.system)
    return found
