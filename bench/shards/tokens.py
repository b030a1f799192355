"""The symbols of a split, memory-mapped shard by shard and read as one array."""

import functools
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.shards.index import Part

OPEN = 64  # shards at once, two descriptors each; systems allow as few as 256 of those


class Tokens:
    """Symbols of `part` in `folder`, read-only; what is read is copied out of the shards.

    Slices go through memory maps. Windows from all over a text do not: a map costs a page fault for
    each, with which the system maps the neighbourhood too (64 KiB, or 2 MiB of a large page), so
    that the process would seem to hold ever more of the files. Read at their positions they take a
    sixth of the time and no memory but their own, and other threads run meanwhile.
    """

    def __init__(self, folder: Path, part: Part) -> None:
        self.dtype = np.dtype(part.dtype).newbyteorder("<")
        self._paths = [folder / shard.name for shard in part.shards]
        self._ends = np.cumsum([shard.symbols for shard in part.shards], dtype=np.int64)
        self._begins = self._ends - [shard.symbols for shard in part.shards]
        self._file = functools.lru_cache(OPEN)(self._opened)

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
        """Windows of `length` symbols that begin at `starts`, (N, length), in their order.

        A window may begin in one shard and end in the next.
        """
        found = np.empty((len(starts), length), dtype=self.dtype)
        # In the order of the files: a disk fetches in one direction.
        rows = np.argsort(starts)
        shards = np.searchsorted(self._ends, starts[rows], side="right")
        places = starts[rows] - self._begins[shards]
        crossing = starts[rows] + length > self._ends[shards]
        for row, shard, place, crosses in zip(
            rows.tolist(), shards.tolist(), places.tolist(), crossing.tolist(), strict=True
        ):
            if crosses:
                found[row] = self._span(int(starts[row]), int(starts[row]) + length)
            else:
                self._file(shard).read(found[row], place * self.dtype.itemsize)
        return found

    def _span(self, begin: int, end: int) -> np.ndarray:
        pieces = []
        while begin < end:
            shard = int(np.searchsorted(self._ends, begin, side="right"))
            base, stop = int(self._begins[shard]), min(end, int(self._ends[shard]))
            pieces.append(self._file(shard).mapped[begin - base : stop - base])
            begin = stop
        return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)

    def _opened(self, shard: int) -> "_File":
        return _File(self._paths[shard], self.dtype)


class _File:
    """An open shard."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.path, self.dtype = path, dtype
        self.stream = open(path, "rb", buffering=0)  # noqa: SIM115 (it lasts as long as this)

    def __del__(self) -> None:
        if hasattr(self, "stream"):
            self.stream.close()

    @functools.cached_property
    def mapped(self) -> np.ndarray:
        """All symbols. A file that is cut short while it is mapped ends the process (SIGBUS)."""
        held = mmap.mmap(self.stream.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(held, dtype=self.dtype)

    def read(self, row: np.ndarray, offset: int) -> None:
        """Fill `row` with what stands at a byte of the file."""
        if not hasattr(os, "preadv"):  # Windows
            first = offset // self.dtype.itemsize
            row[:] = self.mapped[first : first + len(row)]
        elif os.preadv(self.stream.fileno(), [row.data], offset) != row.nbytes:
            raise ValueError(f"{self.path} was cut short while it was read")
