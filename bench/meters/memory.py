"""Memory of one call, in a pass of its own that is not timed.

On a CPU the peak is that of the allocator's own events, which torch's profiler records: scratch
inside of operators is among them. On CUDA the allocator's own peak is read. Both say what tensors
need, not what the process holds; its high-water mark, reset at the pass, stands beside them.
"""

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

EVENTS = "CPU allocator events"
# The kernel's own switch: 5 resets the high-water mark (proc_pid_clear_refs(5)).
CLEAR_REFS = Path("/proc/self/clear_refs")


class StorageTracker(TorchDispatchMode):
    """Follows the storages that operators make. `current` is the bytes alive now."""

    def __init__(self, known: Iterable[Tensor | None] = ()) -> None:
        super().__init__()
        self.known = {t.untyped_storage()._cdata for t in known if t is not None}
        self.live: dict[int, int] = {}
        self.current = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.known or key in self.live:
            return
        self.live[key] = storage.nbytes()
        self.current += self.live[key]
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.current -= self.live.pop(key, 0)


def nbytes(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of distinct storages."""
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in tensors
        if t is not None
    }
    return sum(storages.values())


def tensors_in(state: object) -> Iterator[Tensor]:
    """Every tensor that a state holds: in lists, tuples, dictionaries and objects' attributes."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from tensors_in(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from tensors_in(value)
    elif hasattr(state, "__dict__") and not isinstance(state, type | nn.Module):
        yield from tensors_in(vars(state))


def peak_of(
    call: Callable[[], object],
    model: nn.Module,
    device: torch.device,
    others: Iterable[Tensor] = (),
) -> dict[str, Any]:
    """Peak bytes of tensors while `call` runs, those of the model and `others` included.

    Gradients of the model are dropped first: a training step does so itself, and the profiler does
    not see the end of what began before it.
    """
    for parameter in model.parameters():
        parameter.grad = None
    resident = nbytes([*model.parameters(), *model.buffers(), *others])
    result: dict[str, Any] = {"parameters_bytes": nbytes(model.parameters())}
    reset = reset_process_peak()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        result["peak_bytes"] = torch.cuda.max_memory_allocated(device)
        result["reserved_bytes"] = torch.cuda.max_memory_reserved(device)
        result["method"] = "CUDA allocator"
        result["rss_peak_bytes"] = process_peak() if reset else None
        return result
    call()  # without the profiler, whose own memory is no part of the process's mark
    result["rss_peak_bytes"] = process_peak() if reset else None
    for parameter in model.parameters():
        parameter.grad = None
    result["peak_bytes"] = resident + allocated_peak(call)
    result["method"] = EVENTS
    return result


def allocated_peak(call: Callable[[], object]) -> int:
    """The most bytes that torch's CPU allocator gave out at once during `call`, above the start."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    current = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak


def kept_by_forward(call: Callable[[], object], model: nn.Module, known: Iterable[Tensor]) -> int:
    """Bytes that the forward pass of `model` leaves alive for the backward pass, outputs included.

    `call` runs forward once; `known` are tensors that were there before, beside the model's own.
    """
    tracker = StorageTracker([*model.parameters(), *model.buffers(), *known])
    seen: list[int] = []
    handle = model.register_forward_hook(lambda *_: seen.append(tracker.current))
    try:
        with tracker:
            call()
    finally:
        handle.remove()
    return seen[0]


def resident_bytes() -> int:
    """What the process holds now."""
    return int(psutil.Process(os.getpid()).memory_info().rss)


def reset_process_peak() -> bool:
    """Let the high-water mark start anew; False where the system has no such switch."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def process_peak() -> int | None:
    """The process's high-water mark in bytes, where the system tells it (Linux)."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:
        return None
    return None
