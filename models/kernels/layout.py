"""How kernels lay rows out in workspaces whose rows have a length that suits vectors."""

from models.kernels.compiled import jit


@jit
def round_up(count, size):  # type: ignore[no-untyped-def]
    """The next multiple of `size`."""
    return -(-count // size) * size


@jit
def lay_out(rows, out, length):  # type: ignore[no-untyped-def]
    """Rows (N, E), a row every `length` numbers; what lies between them stays as it is."""
    for n in range(rows.shape[0]):
        for e in range(rows.shape[1]):
            out[n * length + e] = rows[n, e]


@jit
def gather(given, length, rows):  # type: ignore[no-untyped-def]
    """The way back."""
    for n in range(rows.shape[0]):
        for e in range(rows.shape[1]):
            rows[n, e] = given[n * length + e]
