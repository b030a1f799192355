"""Following tensors by the results of operators: another way to what the allocator tells."""

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class StorageTracker(TorchDispatchMode):
    """`peak` is the most bytes of storages, made by operators since the start, alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.current = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if _is(t)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if _is(tensor) and tensor.untyped_storage()._cdata not in given | self.live.keys():
                self._follow(tensor)
        return result

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.live[storage._cdata] = storage.nbytes()
        self.current += storage.nbytes()
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._drop, storage._cdata)

    def _drop(self, key: int) -> None:
        self.current -= self.live.pop(key)


def _is(value: object) -> bool:
    return isinstance(value, Tensor)
