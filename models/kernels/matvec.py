"""A matrix times one vector, as a step of decoding at batch 1 multiplies (optional).

Reading the matrix is all of the work. torch's product leaves it to one thread; here it is shared
out among the threads that torch has. A value is summed by one of them, so that the result does not
depend on how many there are. These are called by other kernels, which then are one call.

Shapes: M rows, D columns.
"""

import numpy as np
from numba import prange

from models.kernels.compiled import jit

# Numbers of a matrix below which one thread is done before the others have begun.
FEW = 65_536
WIDE = 64  # columns that one thread takes at a time


@jit
def dot(row, x):  # type: ignore[no-untyped-def]
    """Of two vectors."""
    total = x.dtype.type(0)
    for j in range(x.shape[0]):
        total += row[j] * x[j]
    return total


@jit(parallel=True)
def _shared_matvec(W, x, out):  # type: ignore[no-untyped-def]
    for i in prange(W.shape[0]):
        out[i] = dot(W[i], x)


@jit(parallel=True)
def _shared_add_matvec(base, W, x, out):  # type: ignore[no-untyped-def]
    for i in prange(W.shape[0]):
        out[i] = base[i] + dot(W[i], x)


@jit
def matvec(W, x, out):  # type: ignore[no-untyped-def]
    """out = W x: W (M, D), x (D), out (M)."""
    if W.size < FEW:
        for i in range(W.shape[0]):
            out[i] = dot(W[i], x)
    else:
        _shared_matvec(W, x, out)


@jit
def add_matvec(base, W, x, out):  # type: ignore[no-untyped-def]
    """out = base + W x: base and out (M), which may be the same."""
    if W.size < FEW:
        for i in range(W.shape[0]):
            out[i] = base[i] + dot(W[i], x)
    else:
        _shared_add_matvec(base, W, x, out)


@jit
def _add_columns(weight, x, W, out, lo, hi):  # type: ignore[no-untyped-def]
    for i in range(W.shape[0]):
        row, factor = W[i], weight * x[i]
        for j in range(lo, hi):
            out[j] += factor * row[j]


@jit(parallel=True)
def _shared_add_columns(weight, x, W, out):  # type: ignore[no-untyped-def]
    for part in prange((W.shape[1] + WIDE - 1) // WIDE):
        _add_columns(weight, x, W, out, part * WIDE, min((part + 1) * WIDE, W.shape[1]))


@jit
def add_vecmat(weight, x, W, out):  # type: ignore[no-untyped-def]
    """out += weight x W: x (M), W (M, D), out (D)."""
    if W.size < FEW:
        _add_columns(weight, x, W, out, 0, W.shape[1])
    else:
        _shared_add_columns(weight, x, W, out)


def warm() -> None:
    """Compile all kernels, or load them from numba's cache."""
    eye, one, out = (np.ones(shape, np.float32) for shape in ((2, 2), 2, 2))
    matvec(eye, one, out)
    add_matvec(one, eye, one, out)
    add_vecmat(one[0], one, eye, out)
