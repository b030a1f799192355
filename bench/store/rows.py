"""From files to rows of the index: thousands of them by every core."""

import concurrent.futures
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow

from bench.store.arrays import Row, table_of
from bench.store.brief import brief
from bench.store.parse import Problem, read_regular

Stamp = tuple[int, int]  # size and time of change in nanoseconds
MANY = 1000  # files from which on a second process is worth its start
CHUNK = 500
Part = tuple[pyarrow.Table, list[Problem]]


def read_rows(
    folder: Path, stamps: Mapping[str, Stamp]
) -> tuple[list[pyarrow.Table], list[Problem]]:
    """Rows of the index for files of `folder`, and those that could not be read."""
    items = list(stamps.items())
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    workers = _workers(len(items))
    if workers < 2:
        parts = [_read_chunk(folder, chunk) for chunk in chunks]
    else:
        with warnings.catch_warnings():
            # Threads of numerical libraries: the children use none of them.
            warnings.simplefilter("ignore", DeprecationWarning)
            with concurrent.futures.ProcessPoolExecutor(
                workers, mp_context=multiprocessing.get_context("fork")
            ) as pool:
                parts = list(pool.map(_read_chunk, [folder] * len(chunks), chunks))
    return [part[0] for part in parts], [problem for part in parts for problem in part[1]]


def _workers(files: int) -> int:
    """Processes to read with: more than one only where a fork is quick and safe."""
    alone = threading.active_count() == 1 and "torch" not in sys.modules
    if files < MANY or not alone or not sys.platform.startswith("linux"):
        return 1
    return min(len(os.sched_getaffinity(0)), 8)


def _read_chunk(folder: Path, chunk: Sequence[tuple[str, Stamp]]) -> Part:
    rows: list[Row] = []
    problems: list[Problem] = []
    for name, (size, changed) in chunk:
        try:
            record, encode = read_regular(folder, name)
        except ValueError as error:
            problems.append(Problem(folder / name, str(error)))
            continue
        kept = brief(record)
        rows.append((name, size, changed, kept, encode(kept)))
    return table_of(rows), problems
