"""Compile every kernel for fp32, so that no measurement waits for it.

    python -m models.kernels.warm

numba keeps what it compiled beside the source, or in the user's cache where that is read-only.
"""

import importlib
import multiprocessing
import os
import sys
import time
from typing import Any

import torch
from torch import nn

from models.kernels.available import numba_problem

MODULES = (
    "wkv7",
    "wkv4",
    "selective_scan",
    "ssd",
    "causal_attention",
    "causal_conv",
    "rwkv7_step",
    "mamba_step",
    "attention_step",
    "mlp_step",
    "matvec",
    "rms_norm",
    "rotary",
    "elementwise",
)  # the slowest first


def mambas() -> list[nn.Module]:
    """Whose single steps are kernels of `mamba_step`."""
    from models.backbones.mamba import Mamba
    from models.backbones.mamba2 import Mamba2

    shared: dict[str, Any] = {
        "d_model": 4, "n_layers": 1, "d_state": 2, "d_conv": 2, "norm_eps": 1e-5,
        "negative_eigenvalues": False, "kernel": "numba", "residual_init": "zero",
    }  # fmt: skip
    return [
        Mamba(**shared, d_inner=4, dt_rank=1, selective=True),
        Mamba2(**shared, nheads=2, headdim=2, ngroups=1, chunk_size=2),
    ]


def rwkv7() -> list[nn.Module]:
    """Whose single steps are those of `rwkv7_step`."""
    from models.backbones.rwkv7 import RWKV7

    model = RWKV7(d_model=4, n_layers=2, head_size=2, d_ff=4, decay_rank=1, rate_rank=1,
                  value_rank=1, gate_rank=1, negative_eigenvalues=False, chunk=1,
                  kernel="numba")  # fmt: skip
    return [model]


# Kernels that read a model's parameters are compiled by a step of it.
STEPPED = {"mamba_step": mambas, "rwkv7_step": rwkv7}


def step(model: Any) -> None:
    """One symbol of width 4."""
    with torch.no_grad():
        state = model.init_state(1, device=torch.device("cpu"), dtype=torch.float32)
        model.step(torch.ones(1, 4), state)


def warm(name: str) -> str:
    """Compile one module's kernels in this process; the line to print."""
    begin = time.perf_counter()
    if name in STEPPED:
        for model in STEPPED[name]():
            step(model)
    else:
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
