"""Products of the blocks that the fused kernels are made of, against torch's of the same size.

    python -m benchmarks.tile

Many products of 64 x 64 by 64 x 64 in fp32 on two threads: torch's as one batch, ours by a loop
that threads share. The second line is the rate of ours.
"""

import numba
import torch

from benchmarks.ab import THREADS, compare, seconds_of
from models.kernels.compiled import jit, run
from models.kernels.tile import multiply

SIDE, COUNT = 64, 128
SECONDS, TARGET = 4.0, 1.0
CALLS = 99


@jit(parallel=True)
def products(a, b, c):  # type: ignore[no-untyped-def]
    """c = a b of each of COUNT matrices, (COUNT, SIDE, SIDE)."""
    for n in numba.prange(a.shape[0]):
        multiply(a[n], 0, SIDE, 1, b[n], 0, SIDE, c[n], 0, SIDE, SIDE, SIDE, SIDE, True)


def main() -> None:
    """Both sides in turns, then ours alone."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    a, b, c = (torch.randn(COUNT, SIDE, SIDE) for _ in range(3))
    expected = torch.bmm(a, b)

    def ours() -> None:
        run(products, a, b, c)

    ours()
    torch.testing.assert_close(c, expected)
    compare(
        f"{COUNT} blocks of {SIDE}", ours, lambda: torch.bmm(a, b, out=expected),
        seconds=SECONDS, target=TARGET,
    )  # fmt: skip
    best = min(seconds_of(ours) for _ in range(CALLS))
    print(f"ours: {2e-9 * COUNT * SIDE**3 / best:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
