"""The forms of the selective scan of Mamba-1 side by side, forward and backward.

Which torch form is the fastest on this device (a loop over time, or chunks side by side), and
beside it the fused kernel.

    python -m benchmarks.scan [--device cpu]
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.ab import THREADS, seconds_of
from models.backbones.selective_scan import (
    recurrence_chunked,
    recurrence_loop,
    selective_scan_torch,
)
from models.kernels.available import numba_problem


def scan_forms(batch: int, length: int, channels: int, states: int, device: str) -> None:
    """Forward and backward of every form of the selective scan on the same inputs."""
    forms: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
        "torch, loop over time": partial(selective_scan_torch, recurrence=recurrence_loop),
        "torch, chunked": partial(selective_scan_torch, recurrence=recurrence_chunked),
    }
    if device == "cpu" and numba_problem() is None:
        from models.kernels.selective_scan import selective_scan_fused

        forms["numba, fused"] = selective_scan_fused
    inputs = [
        torch.randn(batch, length, channels),
        torch.rand(batch, length, channels) * 0.1,
        -torch.arange(1.0, states + 1).repeat(channels, 1),
        torch.randn(batch, length, states),
        torch.randn(batch, length, states),
        torch.randn(channels),
        torch.randn(batch, length, channels),
    ]
    inputs = [x.to(device).requires_grad_() for x in inputs]

    def call(form: Callable[..., tuple[Tensor, Tensor]]) -> None:
        torch.autograd.grad(form(*inputs, None)[0].sum(), inputs)
        if device != "cpu":
            torch.cuda.synchronize()

    samples: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(9):
        for name, form in forms.items():
            seconds = seconds_of(partial(call, form))
            if turn >= 2:
                samples[name].append(seconds)
    shape = f"batch {batch}, length {length}, {channels} channels, {states} states"
    for name, taken in samples.items():
        median = statistics.median(taken)
        print(
            f"selective scan ({shape}) on {device}: {name}: {1e3 * median:.2f} ms, "
            f"{batch * length / median:,.0f} tokens/s a layer",
            flush=True,
        )


def main() -> None:
    """At size nano, and at the shape of the speed table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    scan_forms(8, 256, 176, 16, device)
    scan_forms(4, 512, 512, 16, device)


if __name__ == "__main__":
    main()
