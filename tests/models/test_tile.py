"""Products of tiles and passes over rows, in vectors of every size, against numpy."""

from typing import Any

import numba
import numpy as np
import pytest

from models.kernels.tile import ROWS, multiply, tile_of
from models.kernels.vectors import BYTES, LANES, softmax_functions

KINDS = [np.float32, np.float64]
SIZES = [16, 32, 64]  # NEON and SSE, AVX, AVX-512: LLVM splits what a processor does not have
COUNT, BLOCK = 64, 5


def drawn(shape: tuple[int, ...], kind: Any) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [LANES, 3 * LANES, 4 * LANES, 7 * LANES])
@pytest.mark.parametrize("depth", [0, 1, 20])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_a_product(kind: Any, columns: int, depth: int, fresh: bool, turned: bool) -> None:
    rows = 3 * ROWS
    a, b, c = (
        drawn((rows, depth), kind),
        drawn((depth, columns), kind),
        drawn((rows, columns), kind),
    )
    room = np.full(5 + rows * (columns + 2), 7, kind)  # rows with gaps between, which stay
    inside = room[5:].reshape(rows, columns + 2)
    inside[:, :columns] = c
    left = np.ascontiguousarray(a.T if turned else a).ravel()
    steps = (1, rows) if turned else (depth, 1)
    multiply(
        left, 0, *steps, b.ravel(), 0, columns, room, 5, columns + 2, rows, columns, depth, fresh
    )
    error = 1e-5 if kind == np.float32 else 1e-12
    np.testing.assert_allclose(
        inside[:, :columns], a @ b + (0 if fresh else c), rtol=error, atol=error
    )
    assert (room[:5] == 7).all()
    assert (inside[:, columns:] == 7).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_tile_of_any_vectors(kind: Any, size: int) -> None:
    vectors, depth = 2, 9
    tile = tile_of(vectors, fresh=True, size=size)
    columns = vectors * size // np.dtype(kind).itemsize
    a, b, c = (
        drawn((ROWS, depth), kind),
        drawn((depth, columns), kind),
        np.zeros((ROWS, columns), kind),
    )

    @numba.njit
    def once(a: Any, b: Any, c: Any) -> None:
        tile(a, 0, depth, 1, b, 0, columns, c, 0, columns, depth)

    once(a.ravel(), b.ravel(), c.ravel())
    np.testing.assert_allclose(c, a @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_passes_over_a_block(kind: Any, size: int) -> None:
    """The maximum and the exponentials by columns, and the probabilities by rows."""
    largest, exponentiate, weigh = softmax_functions(BLOCK, COUNT, size)

    @numba.njit
    def all_three(a: Any, best: Any, total: Any, p: Any, ds: Any, logs: Any, means: Any) -> None:
        largest(a, best)
        exponentiate(a, best, total)
        weigh(p, ds, logs, means)

    a, b = 20 * drawn((BLOCK, COUNT), kind), drawn((BLOCK, COUNT), kind)
    logs, means = a.max(1), drawn((BLOCK,), kind)
    best, total = 20 * drawn((COUNT,), kind) + 20, drawn((COUNT,), kind)  # of blocks before
    room = [np.concatenate([x.ravel(), x.ravel()[:5]]) for x in (a, best, total, a, b)]
    all_three(*room, logs, means)
    error = 8e-6 if kind == np.float32 else 4e-12  # the exponent's own rounding is 2^-24 of 60
    highest = np.maximum(best, a.max(0))
    assert (room[1][:COUNT] == highest).all()
    powers = np.exp2(a.astype(np.float64) - highest)
    p = np.exp2(a.astype(np.float64) - logs[:, None])
    for found, expected in (
        (room[0], powers), (room[3], p), (room[4], p * (b - means[:, None])),
    ):  # fmt: skip
        found = found[:-5].reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=error, atol=1e-37)
    np.testing.assert_allclose(room[2][:COUNT], total + powers.sum(0), rtol=0, atol=error)
    for changed, before in zip(room, (a, best, total, a, b), strict=True):
        assert (changed[-5:] == before.ravel()[:5]).all()


@pytest.mark.parametrize("size", SIZES)
def test_exponentials_at_the_ends(size: int) -> None:
    _, exponentiate, _ = softmax_functions(1, 16, size)
    once = numba.njit(lambda a, least, total: exponentiate(a, least, total))
    a = np.zeros(16, np.float32)
    a[:6] = [-np.inf, -126.0, -1e30, 127.0, 0.5, np.nan]
    once(a, np.zeros(16, np.float32), np.zeros(16, np.float32))
    np.testing.assert_allclose(a[:3], 2.0**-126, rtol=1e-6)  # below it nothing is smaller
    np.testing.assert_allclose(a[3:5], [2.0**127, 2.0**0.5], rtol=1e-6)
    assert np.isnan(a[5])
    np.testing.assert_allclose(a[6:], 1, rtol=1e-6)


def test_the_vectors_are_those_of_the_processor() -> None:
    assert BYTES in SIZES
    assert LANES * 4 % BYTES == 0
