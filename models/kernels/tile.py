"""Products of small matrices for kernels that fuse around them.

A tile of the result stays in registers while the depth passes by, and every number of the first
factor that is loaded multiplies a whole row of the tile (Goto and van de Geijn 2008, "Anatomy of
high-performance matrix multiplication"). Both factors should lie in the cache: nothing is packed.

Shapes: M rows, N columns; M is a multiple of ROWS and N of LANES, as workspaces are padded.
"""

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from models.kernels.compiled import jit
from models.kernels.vectors import BYTES, REGISTERS, WORD, Vectors, first_of

ROWS = 4
VECTORS = 4 if REGISTERS == 32 else 2  # of a row of a tile: 16 or 8 sums, which hide a latency


def tile_of(vectors: int, *, fresh: bool, size: int = BYTES) -> Any:
    """A function for a tile of ROWS rows of that many vectors of `size` bytes.

    It is c[c0 + i c_row + j] += sum_k a[a0 + i a_row + k a_step] b[b0 + k b_row + j], or without
    the old c where it is `fresh`. Indices count as the arrays lie in memory.
    """

    @intrinsic
    def tile(typingctx, a, a0, a_row, a_step, b, b0, b_row, c, c0, c_row, depth):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, _, a_row, a_step, _, _, b_row, _, _, c_row, depth = arguments
            a, b, c = (
                first_of(context, builder, signature.args[i], arguments[i], arguments[i + 1])
                for i in (0, 4, 7)
            )
            own = Vectors(builder, a.type.pointee, size)
            rows = [builder.gep(c, [builder.mul(c_row, WORD(i))]) for i in range(ROWS)]
            places = [(row, j) for row in rows for j in range(vectors)]
            # LLVM turns these into registers, as nothing takes their address.
            sums = [cgutils.alloca_once(builder, own.kind) for _ in places]
            for total, place in zip(sums, places, strict=True):
                builder.store(own.constant(0.0) if fresh else own.load(*place), total)
            with cgutils.for_range(builder, depth, intp=WORD) as loop:
                row = builder.gep(b, [builder.mul(b_row, loop.index)])
                column = builder.gep(a, [builder.mul(a_step, loop.index)])
                seconds = [own.load(row, j) for j in range(vectors)]
                for i in range(ROWS):
                    number = builder.load(builder.gep(column, [builder.mul(a_row, WORD(i))]))
                    first = own.spread(number)
                    for total, second in zip(sums[i * vectors :], seconds, strict=False):
                        builder.store(own.fused(first, second, builder.load(total)), total)
            for total, place in zip(sums, places, strict=True):
                own.store(builder.load(total), *place)
            return context.get_dummy_value()

        index = types.intp
        factors = (a, index, index, index, b, index, index)
        return types.void(*factors, c, index, index, index), generate

    return tile


_wide, _wide_fresh = tile_of(VECTORS, fresh=False), tile_of(VECTORS, fresh=True)
_narrow, _narrow_fresh = tile_of(1, fresh=False), tile_of(1, fresh=True)


@jit
def multiply(a, a0, a_row, a_step, b, b0, b_row, c, c0, c_row, M, N, depth, fresh):  # type: ignore[no-untyped-def]
    """c (M, N) = a (M, depth) b (depth, N), or added to what c holds where it is not `fresh`.

    The matrices begin at a0, b0 and c0 of their arrays; rows of b and c are `b_row` and `c_row`
    numbers apart, and a[i, k] stands at i a_row + k a_step, so that a transposed matrix is read
    where it lies.
    """
    lanes = BYTES // a.itemsize
    wide = VECTORS * lanes
    whole = N - N % wide
    for i in range(0, M, ROWS):
        at, to = a0 + i * a_row, c0 + i * c_row
        for j in range(0, whole, wide):
            if fresh:
                _wide_fresh(a, at, a_row, a_step, b, b0 + j, b_row, c, to + j, c_row, depth)
            else:
                _wide(a, at, a_row, a_step, b, b0 + j, b_row, c, to + j, c_row, depth)
        for j in range(whole, N, lanes):
            if fresh:
                _narrow_fresh(a, at, a_row, a_step, b, b0 + j, b_row, c, to + j, c_row, depth)
            else:
                _narrow(a, at, a_row, a_step, b, b0 + j, b_row, c, to + j, c_row, depth)
