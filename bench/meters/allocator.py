"""What the allocator of a device hands out, phase by phase.

On CUDA its own counters are read, the peak among them. On MPS two numbers are read before and after
a phase: what tensors occupy (`torch.mps.current_allocated_memory`, without the blocks that are kept
for the next ones), and what Metal's driver has given to this process
(`torch.mps.driver_allocated_memory`: those blocks and Metal's own as well). Neither has a peak, so
that what a phase needed only while it ran is not known there.
The CPU's keeps no counters, but it tells torch's profiler of every block that it hands out and
takes back. These events see what following the results of operators (a dispatch mode) cannot:
scratch inside operators, and tensors that compiled or fused kernels make.
None sees memory that comes from elsewhere, such as numpy's or a library's own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import profile, record_function

from bench.meters.waiting import wait_for

MARK = "archbench phase: "
METHODS = {
    "cpu": "CPU allocator events",
    "cuda": "CUDA allocator",
    "mps": "MPS allocator, which keeps no peak",
}


@dataclass(frozen=True)
class Phase:
    """Bytes: what lives on after the phase, and the most that was alive at once during it.

    `peak` counts all that was alive before the phase as well; None where no counter has it.
    `reserved` is what was taken from the device, the allocator's store included: on CUDA the most
    so far, on MPS what it is after the phase; None on a CPU, which keeps no store.
    """

    added: int
    peak: int | None
    reserved: int | None = None


def nbytes(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of distinct storages."""
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in tensors
        if t is not None
    }
    return sum(storages.values())


def run_phases(
    phases: Mapping[str, Callable[[], object]], resident: Iterable[Tensor], device: torch.device
) -> dict[str, Phase]:
    """Run `phases` one after another; what each did to the memory of `device`.

    `resident` are the tensors that are alive already. A CPU's allocator cannot tell how much it has
    handed out before, nor sees it when a phase frees one of these.
    """
    if device.type == "cuda":
        return {name: _cuda_phase(call, device) for name, call in phases.items()}
    if device.type == "mps":
        return {name: _mps_phase(call, device) for name, call in phases.items()}
    return _cpu_phases(phases, nbytes(resident))


def _cuda_phase(call: Callable[[], object], device: torch.device) -> Phase:
    wait_for(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    wait_for(device)
    return Phase(
        added=torch.cuda.memory_allocated(device) - before,
        peak=torch.cuda.max_memory_allocated(device),
        reserved=torch.cuda.max_memory_reserved(device),
    )


def _mps_phase(call: Callable[[], object], device: torch.device) -> Phase:
    wait_for(device)
    before = torch.mps.current_allocated_memory()
    call()
    wait_for(device)
    return Phase(
        added=torch.mps.current_allocated_memory() - before,
        peak=None,
        reserved=torch.mps.driver_allocated_memory(),
    )


def _cpu_phases(phases: Mapping[str, Callable[[], object]], start: int) -> dict[str, Phase]:
    # The profiler of torch.autograd: that of torch.profiler first spends a second on imports.
    with profile(profile_memory=True) as seen:
        for name, call in phases.items():
            with record_function(MARK + name):
                call()
    found: dict[str, Phase] = {}
    name, before = "", start
    alive: dict[int, int] = {}
    current = peak = start
    for event in _in_order(seen):
        if event.name.startswith(MARK):
            if name:
                found[name] = Phase(current - before, peak)
            name, before, peak = event.name.removeprefix(MARK), current, current
        elif block := _block(event):
            address, size = block
            if size > 0:
                alive[address] = size
                current += size
                peak = max(peak, current)
            else:
                # A block from before the profile is none of ours, whatever size it is given.
                current -= alive.pop(address, 0)
    found[name] = Phase(current - before, peak)
    return found


def _in_order(seen: profile) -> list[Any]:
    """Events by the time at which they begin; those that operators contain stand below them."""
    assert seen.kineto_results is not None
    events = list(_below(seen.kineto_results.experimental_event_tree()))
    return sorted(events, key=lambda event: event.start_time_ns)


def _below(events: Iterable[Any]) -> Iterator[Any]:
    pending = list(events)
    while pending:
        event = pending.pop()
        pending += event.children
        yield event


def _block(event: Any) -> tuple[int, int] | None:
    """Address and size of what was handed out (positive) or taken back (negative)."""
    fields = event.extra_fields
    size = getattr(fields, "alloc_size", None)
    if size is None or fields.device.type != "cpu":
        return None
    return int(fields.ptr), int(size)
