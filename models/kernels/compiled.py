"""How the kernels are compiled, and the elementary functions that vectorise in them."""

import functools
import hashlib
import math
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import overload
from torch import Tensor

HERE = Path(__file__).parent
# numba asks whether the file of a function is newer than its machine code, and not about the files
# that were compiled into it: a folder for each state of all of them. The user's own comes first.
if not numba.config.CACHE_DIR:
    _SOURCES = b"".join(path.read_bytes() for path in sorted(HERE.glob("*.py")))
    numba.config.CACHE_DIR = str(HERE / "__pycache__" / hashlib.sha256(_SOURCES).hexdigest()[:16])

# OpenMP's threads are those that torch has; where numba comes without, its own are the next best.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

LOG2E = math.log2(math.e)
TINY = 1e-30  # what `flushed` makes zeros of: in fp32 denormals begin at 1.2e-38
# 2^f on [-1/2, 1/2]: the polynomial through it at the Chebyshev points, to a relative 1.1e-7.
_P = np.polynomial.Chebyshev.interpolate(np.exp2, 5, domain=[-0.5, 0.5])
POWERS = tuple(np.float32(c) for c in _P.convert(kind=np.polynomial.Polynomial).coef)
_P0, _P1, _P2, _P3, _P4, _P5 = POWERS


def _coefficients(function: Any, degree: int) -> tuple[Any, ...]:
    """Of the polynomial through a function on [0, 1] at the Chebyshev points, in fp32."""
    fitted = np.polynomial.Chebyshev.interpolate(function, degree, domain=[0, 1])
    return tuple(np.float32(c) for c in fitted.convert(kind=np.polynomial.Polynomial).coef)


# log(1 + t) / t and (1 - e^-t) / t, to a relative 1.4e-7 in fp32.
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8, _L9 = _coefficients(lambda t: np.log1p(t) / t, 9)
_F0, _F1, _F2, _F3, _F4, _F5, _F6 = _coefficients(lambda t: -np.expm1(-t) / t, 6)
_HALF, _LOWEST = np.float32(0.5), np.float32(-126)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)


def jit(function: Any = None, *, parallel: bool = False) -> Any:
    """numba.njit without the interpreter's lock, cached on disk where a folder is writable.

    With `parallel` the function's `prange` is shared out among threads. numba's OpenMP layer takes
    the threads that torch has: there are never more that run than torch was allowed, and none spins
    while another one computes.
    """
    options = {
        "nogil": True,
        "fastmath": {"reassoc", "contract", "nsz"},  # no assumption on infinities or NaN
        "error_model": "numpy",
        "parallel": parallel,
    }

    def decorate(function: Any) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            _warn_uncached(str(error))
            return numba.njit(**options)(function)

    return decorate if function is None else decorate(function)


@functools.cache
def _warn_uncached(reason: str) -> None:
    """Once a reason, which names the file: compiling takes half a minute of every process."""
    print(f"warning: kernels are compiled anew in every process: {reason}", file=sys.stderr)


def run(kernel: Any, *tensors: Tensor, numbers: Sequence[float] = ()) -> None:
    """Call a parallel kernel on contiguous tensors, and numbers, with as many threads as torch's.

    What it returns is among `tensors`, so that torch's meters see it. A workspace of more than a
    few megabytes should be too: one that numba allocates is seen by none of them.
    """
    assert all(x.is_contiguous() for x in tensors)
    share_threads()
    kernel(*(x.detach().numpy() for x in tensors), *numbers)


def first_rows(*tensors: Tensor) -> tuple[Any, ...]:
    """Arrays on the first item of each, contiguous, for kernels that share out torch's threads."""
    share_threads()
    return tuple(t.detach().contiguous().numpy()[0] for t in tensors)


def share_threads() -> None:
    """Let this thread's kernels have as many threads as torch uses; it is cheap to ask again.

    numba is asked what it has: workspaces have a part for each of torch's threads, and code of
    others may have told numba another number.
    """
    count = torch.get_num_threads()
    if getattr(_told, "count", None) != count or numba.get_num_threads() != _told.set:
        _start()
        _told.count, _told.set = count, min(count, numba.config.NUMBA_NUM_THREADS)
        numba.set_num_threads(_told.set)


_told = threading.local()


@functools.cache
def _start() -> None:
    """Start numba's threads. OpenMP would then give torch as many, whatever it was told before."""
    told = torch.get_num_threads()
    numba.set_num_threads(1)
    torch.set_num_threads(told)


def blocks_of(channels: int, most: int) -> Tensor:
    """Blocks [lo, hi) of at most `most` channels, of nearly equal size, whole cache lines each."""
    count = math.ceil(channels / most)
    size = 16 * math.ceil(channels / count / 16)
    return torch.tensor([(lo, min(lo + size, channels)) for lo in range(0, channels, size)])


def exp2(x):  # type: ignore[no-untyped-def]
    """2^x for x <= 127, as the kernels call it."""
    return 2.0**x


@overload(exp2, inline="always")
def _exp2(x):  # type: ignore[no-untyped-def]
    if isinstance(x, numba.types.Float) and x.bitwidth == 64:
        return lambda x: 2.0**x

    def fp32(x):  # type: ignore[no-untyped-def]
        # Integer power times polynomial, which vectorises without a library; in pairs, so that the
        # chain of dependent operations is short.
        x = max(x, _LOWEST)
        whole = np.floor(x + _HALF)
        f = x - whole
        f2 = f * f
        power = (_P0 + _P1 * f) + f2 * ((_P2 + _P3 * f) + f2 * (_P4 + _P5 * f))
        return power * np.int32((np.int32(whole) + _BIAS) << _MANTISSA).view(np.float32)

    return fp32


@numba.njit(inline="always")
def sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + e^-x); where e^-x would overflow the result is below 1e-34 and stays there."""
    kind = type(x)
    return kind(1) / (kind(1) + exp2(min(-x, kind(80)) * kind(LOG2E)))


@numba.njit(inline="always")
def flushed(x):  # type: ignore[no-untyped-def]
    """Zero for what is on its way to the denormals, whose arithmetic is a hundred times slower."""
    kind = type(x)
    return kind(0) if abs(x) <= kind(TINY) else x  # a NaN stays one


def softplus(x):  # type: ignore[no-untyped-def]
    """log(1 + e^x), as the kernels call it."""
    return np.log1p(np.exp(x))


@overload(softplus, inline="always")
def _softplus(x):  # type: ignore[no-untyped-def]
    if isinstance(x, numba.types.Float) and x.bitwidth == 64:
        return lambda x: (0.0 if x <= 0 else x) + np.log1p(np.exp(-abs(x)))

    def fp32(x):  # type: ignore[no-untyped-def]
        t = exp2(-abs(x) * np.float32(LOG2E))
        above = np.float32(0) if x <= np.float32(0) else x  # a NaN stays one
        t2 = t * t
        low = (_L0 + _L1 * t) + t2 * ((_L2 + _L3 * t) + t2 * (_L4 + _L5 * t))
        high = (_L6 + _L7 * t) + t2 * (_L8 + _L9 * t)
        return above + t * (low + t2 * t2 * t2 * high)

    return fp32


def softplus_slope(y):  # type: ignore[no-untyped-def]
    """The derivative where softplus is y: 1 - e^-y, exact also where that is small."""
    return -np.expm1(-y)


@overload(softplus_slope, inline="always")
def _softplus_slope(y):  # type: ignore[no-untyped-def]
    if isinstance(y, numba.types.Float) and y.bitwidth == 64:
        return lambda y: -np.expm1(-y)

    def fp32(y):  # type: ignore[no-untyped-def]
        one = np.float32(1)
        if y >= one:
            return one - exp2(-y * np.float32(LOG2E))
        y2 = y * y
        high = (_F3 + _F4 * y) + y2 * (_F5 + _F6 * y)
        return y * ((_F0 + _F1 * y) + y2 * (_F2 + y * high))

    return fp32
