"""Compile every kernel for fp32, so that no measurement waits for it.

    python -m models.kernels.warm

numba keeps what it compiled beside the source, or in the user's cache where that is read-only.
"""

import importlib
import multiprocessing
import os
import sys
import time

from models.kernels.available import numba_problem

MODULES = (
    "wkv7",
    "selective_scan",
    "ssd",
    "causal_conv",
    "rwkv7_step",
    "mamba_step",
    "attention_step",
    "rms_norm",
    "swiglu",
)  # the slowest first


def warm(name: str) -> str:
    """Compile one module's kernels in this process; the line to print."""
    begin = time.perf_counter()
    importlib.import_module(f"models.kernels.{name}").warm()
    return f"{name}: {time.perf_counter() - begin:.1f} s"


def main() -> int:
    """Compile as many at a time as there are processors; 0 also where there is no numba."""
    if (problem := numba_problem()) is not None:
        print(f"no kernel is compiled: {problem}", file=sys.stderr)
        return 0
    workers = min(len(MODULES), os.cpu_count() or 1)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for line in pool.imap_unordered(warm, MODULES, chunksize=1):
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
