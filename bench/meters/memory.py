"""Memory of one call, in a pass of its own that is not timed.

On a CPU the bytes of every tensor storage that the call makes are followed through a dispatch
mode until the storage dies; on CUDA the allocator's own peak is read. Both say what tensors need,
not what the process holds; the process's high-water mark stands beside them.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class StorageTracker(TorchDispatchMode):
    """Follows live storages. `peak` is the most bytes alive at once since the start."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.current = 0
        self.peak = 0

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """Count the storages of these tensors until they die."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self.live:
                continue
            size = storage.nbytes()
            self.live[key] = size
            self.current += size
            weakref.finalize(storage, self._drop, key)
        self.peak = max(self.peak, self.current)

    def _drop(self, key: int) -> None:
        self.current -= self.live.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.watch(t for t in tree_iter(result) if isinstance(t, Tensor))
        return result


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
    """Peak bytes of tensors while `call` runs, those of the model and `others` included."""
    resident = [*model.parameters(), *model.buffers()]
    result: dict[str, Any] = {"parameters_bytes": nbytes(model.parameters())}
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        result["peak_bytes"] = torch.cuda.max_memory_allocated(device)
        result["reserved_bytes"] = torch.cuda.max_memory_reserved(device)
        result["method"] = "CUDA allocator"
    else:
        tracker = StorageTracker()
        tracker.watch(resident)
        # No list of the gradients is kept: it would hold them alive when the call drops them.
        tracker.watch(p.grad for p in model.parameters() if p.grad is not None)
        tracker.watch(others)
        with tracker:
            call()
        result["peak_bytes"] = tracker.peak
        result["method"] = "tensor storages"
    result["rss_peak_bytes"] = process_peak()
    return result


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
