"""The symbols of a split, memory-mapped shard by shard and read as one array."""

import functools
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.shards.index import Part

MAPS = 128  # at once: each holds a file open, and systems allow as few as 256 of those


class Tokens:
    """Symbols of `part` in `folder`, read-only; neither opening nor reading takes their memory.

    A window may begin in one shard and end in the next. A file that is shortened while it is
    mapped ends the process (SIGBUS), as everywhere.
    """

    def __init__(self, folder: Path, part: Part) -> None:
        self.dtype = np.dtype(part.dtype).newbyteorder("<")
        self._paths = [folder / shard.name for shard in part.shards]
        self._ends = np.cumsum([shard.symbols for shard in part.shards], dtype=np.int64)
        self._begins = self._ends - [shard.symbols for shard in part.shards]
        self._map = functools.lru_cache(MAPS)(self._mapped)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: Any) -> Any:
        """A symbol by its number, or a copy of those of a slice."""
        if isinstance(index, slice):
            begin, end, step = index.indices(len(self))
            assert step == 1
            return self._span(begin, max(begin, end))
        return self._span(index, index + 1)[0]

    def take(self, starts: NDArray[np.int64], length: int) -> np.ndarray:
        """Windows of `length` symbols that begin at `starts`, (N, length), in their order."""
        found = np.empty((len(starts), length), dtype=self.dtype)
        shards = np.searchsorted(self._ends, starts, side="right")
        for shard in np.unique(shards):
            rows = np.flatnonzero(shards == shard)
            local = starts[rows] - self._begins[shard]
            size = int(self._ends[shard] - self._begins[shard])
            whole = local + length <= size
            if whole.any():
                # Sorted, so that what a disk has to fetch is fetched in one direction.
                order = np.argsort(local[whole])
                held, _ = self._map(int(shard))
                step = self.dtype.itemsize  # from one window to the next, and inside one
                every = np.ndarray((size - length + 1, length), self.dtype, held, 0, (step, step))
                found[rows[whole][order]] = every[local[whole][order]]
            for row in rows[~whole]:
                found[row] = self._span(int(starts[row]), int(starts[row]) + length)
        self._release({int(shard) for shard in shards})
        return found

    def _span(self, begin: int, end: int) -> np.ndarray:
        pieces = []
        while begin < end:
            shard = int(np.searchsorted(self._ends, begin, side="right"))
            base, stop = int(self._begins[shard]), min(end, int(self._ends[shard]))
            pieces.append(self._map(shard)[1][begin - base : stop - base])
            begin = stop
        return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)

    def _mapped(self, shard: int) -> tuple[mmap.mmap, np.ndarray]:
        with open(self._paths[shard], "rb") as stream:
            held = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return held, np.frombuffer(held, dtype=self.dtype)

    def _release(self, shards: set[int]) -> None:
        """Give the pages back that were touched, which the system still caches.

        Else the process would seem to hold ever more of the files, 64 KiB a window.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            for shard in shards:
                self._map(shard)[0].madvise(mmap.MADV_DONTNEED)
