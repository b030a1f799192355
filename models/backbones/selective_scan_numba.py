"""The selective scan of Mamba-1 as a fused CPU kernel, compiled by numba (optional).

The same function as `selective_scan_reference` of selective_scan.py, gate and skip included, on
fp32. Like the CUDA kernel of the paper (arXiv:2312.00752, section 3.3.2) it stores nothing of size
B·T·E·N: states live in cache, the forward keeps one state every `CHUNK` steps, and the backward
recomputes the states of a chunk from it.

Threads are Python threads that run the compiled code without the interpreter's lock: as many as
torch uses, safe after a fork, and idle without spinning. The work is cut by batch item and by
blocks of channels.

Shapes: B batch, T time, E channels, N state size, K = T / CHUNK chunks, S channel blocks.
The state is (B, N, E) here, channels last, so that the inner loops run over contiguous memory.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 16
BLOCK = 128  # channels of one work item: a chunk's states stay within the second-level cache

Array = NDArray[np.float32]

_ONE, _HALF, _LOWEST = np.float32(1), np.float32(0.5), np.float32(-126)
_LOG2E = np.float32(math.log2(math.e))
# 2^f on [-1/2, 1/2] by its Taylor series; the remainder is below 2e-8.
_E1, _E2, _E3, _E4, _E5, _E6 = (
    np.float32(math.log(2) ** i / math.factorial(i)) for i in range(1, 7)
)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)


def _jit(**options: Any) -> Any:
    """numba.njit, cached on disk where a folder for it is writable."""
    flags = {"reassoc", "contract", "nsz"}

    def decorate(function: Any) -> Any:
        make = {"nogil": True, "fastmath": flags, "error_model": "numpy", **options}
        try:
            return numba.njit(cache=True, **make)(function)
        except RuntimeError:  # numba found no writable folder: compile in every process
            return numba.njit(**make)(function)

    return decorate


@numba.njit(inline="always")
def _exp2(x):  # type: ignore[no-untyped-def]
    """2^x for x <= 127 as integer power times polynomial, which vectorises without a library."""
    x = max(x, _LOWEST)
    whole = np.floor(x + _HALF)
    f = x - whole
    series = _ONE + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * (_E5 + f * _E6)))))
    return series * np.int32((np.int32(whole) + _BIAS) << _MANTISSA).view(np.float32)


@numba.njit(inline="always")
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return _ONE / (_ONE + _exp2(min(-x, np.float32(80)) * _LOG2E))


@_jit()
def _forward(u, delta, A2, B, C, D, z, h, bounds, y, b, lo, hi):  # type: ignore[no-untyped-def]
    """Channels lo..hi of item b. `h` (B, N, E) is the first state and becomes the last."""
    steps, states = u.shape[1], A2.shape[0]
    width = hi - lo
    du, acc = np.empty(width, np.float32), np.empty(width, np.float32)
    decay, state = A2[:, lo:hi].copy(), h[b, :, lo:hi].copy()
    skip = D[lo:hi]
    save = bounds.shape[0] > 0
    for t in range(steps):
        if save and t % CHUNK == 0:
            bounds[b, t // CHUNK, :, lo:hi] = state
        ut, dt, zt, yt = u[b, t, lo:hi], delta[b, t, lo:hi], z[b, t, lo:hi], y[b, t, lo:hi]
        for e in range(width):
            du[e] = dt[e] * ut[e]
            acc[e] = skip[e] * ut[e]
        for n in range(states):
            Bn, Cn, An, hn = B[b, t, n], C[b, t, n], decay[n], state[n]
            for e in range(width):
                # Equation 2a, 2b: h = exp(delta A) h + delta B u, y = C h.
                value = _exp2(dt[e] * An[e]) * hn[e] + du[e] * Bn
                hn[e] = value
                acc[e] += value * Cn
        for e in range(width):
            yt[e] = acc[e] * zt[e] * _sigmoid(zt[e])
    h[b, :, lo:hi] = state


@_jit()
def _backward(  # type: ignore[no-untyped-def]
    u, delta, A2, B, C, D, z, bounds, dy, g, du, ddelta, dA, dB, dC, dD, dz, b, s, lo, hi
):
    """Adjoint of `_forward`. `g` (B, N, E) is dL/d(last state) and becomes dL/d(first state)."""
    steps, states = u.shape[1], A2.shape[0]
    width = hi - lo
    decay, adjoint = A2[:, lo:hi].copy(), g[b, :, lo:hi].copy()
    skip = D[lo:hi]
    sum_A, sum_D = np.zeros((states, width), np.float32), np.zeros(width, np.float32)
    hs = np.empty((CHUNK + 1, states, width), np.float32)
    decays = np.empty((CHUNK, states, width), np.float32)
    ys = np.empty((CHUNK, width), np.float32)
    inputs, dout = np.empty(width, np.float32), np.empty(width, np.float32)
    dinput, ddecay = np.empty(width, np.float32), np.empty(width, np.float32)
    for chunk in range((steps - 1) // CHUNK, -1, -1):
        first = chunk * CHUNK
        count = min(CHUNK, steps - first)
        hs[0] = bounds[b, chunk, :, lo:hi]
        for k in range(count):
            t = first + k
            ut, dt, acc = u[b, t, lo:hi], delta[b, t, lo:hi], ys[k]
            for e in range(width):
                inputs[e] = dt[e] * ut[e]
                acc[e] = skip[e] * ut[e]
            for n in range(states):
                Bn, Cn, An = B[b, t, n], C[b, t, n], decay[n]
                before, after, a = hs[k, n], hs[k + 1, n], decays[k, n]
                for e in range(width):
                    a[e] = _exp2(dt[e] * An[e])
                    value = a[e] * before[e] + inputs[e] * Bn
                    after[e] = value
                    acc[e] += value * Cn
        for k in range(count - 1, -1, -1):
            t = first + k
            ut, dt, zt, acc = u[b, t, lo:hi], delta[b, t, lo:hi], z[b, t, lo:hi], ys[k]
            dyt, dzt = dy[b, t, lo:hi], dz[b, t, lo:hi]
            dut, ddt = du[b, t, lo:hi], ddelta[b, t, lo:hi]
            for e in range(width):
                gate = _sigmoid(zt[e])
                out = dyt[e] * zt[e] * gate
                dzt[e] = dyt[e] * acc[e] * gate * (_ONE + zt[e] * (_ONE - gate))
                dout[e] = out
                inputs[e] = dt[e] * ut[e]
                sum_D[e] += out * ut[e]
                dinput[e] = np.float32(0)
                ddecay[e] = np.float32(0)
            for n in range(states):
                Bn, Cn, An = B[b, t, n], C[b, t, n], decay[n]
                before, after, a = hs[k, n], hs[k + 1, n], decays[k, n]
                gn, sn = adjoint[n], sum_A[n]
                dBn, dCn = np.float32(0), np.float32(0)
                for e in range(width):
                    # g_t = C_t dy_t + a_{t+1} g_{t+1}; a's own gradient is g a h_{t-1}.
                    value = gn[e] + dout[e] * Cn
                    dCn += dout[e] * after[e]
                    dBn += value * inputs[e]
                    dinput[e] += value * Bn
                    value *= a[e]
                    gn[e] = value
                    value *= before[e]
                    ddecay[e] += value * An[e]
                    sn[e] += value * dt[e]
                dB[s, b, t, n] = dBn
                dC[s, b, t, n] = dCn
            for e in range(width):
                # `decay` carries log2(e), so ddecay has to be scaled back.
                ddt[e] = dinput[e] * ut[e] + ddecay[e] / _LOG2E
                dut[e] = dinput[e] * dt[e] + dout[e] * skip[e]
    g[b, :, lo:hi] = adjoint
    dA[b, :, lo:hi] = sum_A
    dD[b, lo:hi] = sum_D


def _flush_denormals() -> None:
    # States decay below 1e-38, where arithmetic is a hundred times slower. The flag belongs to a
    # thread, which is why the caller's own thread runs no kernel: its arithmetic stays as it was.
    torch.set_flush_denormal(True)


class _Pool:
    """Worker threads of this process; a forked child makes its own."""

    def __init__(self) -> None:
        self.pid, self.size = -1, 0
        self.executor: ThreadPoolExecutor | None = None

    def run(
        self, function: Any, arguments: tuple[Any, ...], items: Sequence[tuple[int, ...]]
    ) -> None:
        """function(*arguments, *item) for every item, shared out evenly."""
        threads = min(torch.get_num_threads(), len(items))
        if self.executor is None or self.pid != os.getpid() or self.size < threads:
            self.pid, self.size = os.getpid(), threads
            self.executor = ThreadPoolExecutor(
                threads, thread_name_prefix="selective-scan", initializer=_flush_denormals
            )

        def work(part: int) -> None:
            for item in items[part::threads]:
                function(*arguments, *item)

        for future in [self.executor.submit(work, part) for part in range(threads)]:
            future.result()


_pool = _Pool()


def _blocks(channels: int) -> list[tuple[int, int]]:
    """Channel blocks [lo, hi) of nearly equal size, whole cache lines each."""
    count = math.ceil(channels / BLOCK)
    size = 16 * math.ceil(channels / count / 16)
    return [(lo, min(lo + size, channels)) for lo in range(0, channels, size)]


def _array(x: Tensor) -> Array:
    """The memory of a contiguous tensor; torch allocates, so that its meters see every byte."""
    return cast(Array, x.detach().numpy())


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        z: Tensor,
        state: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        batch, length, channels = u.shape
        size = A.shape[1]
        inputs = tuple(x.contiguous() for x in (u, delta, A.T * float(_LOG2E), B, C, D, z))
        if state is None:
            h = u.new_zeros(batch, size, channels)
        else:
            h = state.transpose(1, 2).clone(memory_format=torch.contiguous_format)  # (B, N, E)
        ctx.has_state = state is not None
        saved = batch if any(ctx.needs_input_grad) else 0
        bounds = u.new_empty(saved, -(-length // CHUNK), size, channels)  # (B, K, N, E)
        y = torch.empty_like(inputs[0])
        items = [(b, lo, hi) for b in range(batch) for lo, hi in _blocks(channels)]
        _pool.run(_forward, tuple(map(_array, (*inputs, h, bounds, y))), items)
        if saved:
            ctx.save_for_backward(*inputs, bounds)
        return y, h.transpose(1, 2)  # (B, T, E), (B, E, N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        u, A2 = inputs[0], inputs[2]
        batch, length, channels = u.shape
        size = A2.shape[0]
        blocks = _blocks(channels)
        g = dlast.transpose(1, 2).clone(memory_format=torch.contiguous_format)  # (B, N, E)
        du, ddelta, dz = (torch.empty_like(u) for _ in range(3))
        dA = u.new_empty(batch, size, channels)
        dD = u.new_empty(batch, channels)
        dB, dC = (u.new_empty(len(blocks), batch, length, size) for _ in range(2))  # (S, B, T, N)
        items = [(b, s, lo, hi) for b in range(batch) for s, (lo, hi) in enumerate(blocks)]
        tensors = (*inputs, dy.contiguous(), g, du, ddelta, dA, dB, dC, dD, dz)
        _pool.run(_backward, tuple(map(_array, tensors)), items)
        dstate = g.transpose(1, 2) if ctx.has_state else None  # (B, E, N)
        return du, ddelta, dA.sum(0).T, dB.sum(0), dC.sum(0), dD.sum(0), dz, dstate


def selective_scan_numba(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """As `selective_scan_reference`, on fp32 CPU tensors."""
    return cast(tuple[Tensor, Tensor], _SelectiveScan.apply(u, delta, A, B, C, D, z, state))


def warm() -> None:
    """Compile both kernels, or load them from numba's cache."""
    generator = torch.Generator().manual_seed(0)
    u, delta, z, B = (torch.rand(1, 2, 4, generator=generator) for _ in range(4))
    u.requires_grad_(True)
    y, _ = selective_scan_numba(u, delta, -torch.ones(4, 4), B, B, torch.ones(4), z, None)
    y.sum().backward()
