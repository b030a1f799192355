"""Checks that every family makes of its sizes."""

MOST_LAYERS = 10_000  # more would take longer to make than a cell may run


def check_sizes(**sizes: int) -> None:
    """ValueError for a size below 1, or for more layers than can be made, by its name."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; it has to be at least 1")
    if (layers := sizes.get("n_layers", 1)) > MOST_LAYERS:
        raise ValueError(f"n_layers is {layers}; it can be at most {MOST_LAYERS}")


def heads_of(d_inner: int, size: int, name: str) -> int:
    """How many heads of `size` make up a width; ValueError, naming the option, where none do."""
    check_sizes(**{name: size})
    heads, rest = divmod(d_inner, size)
    if rest:
        raise ValueError(f"{name} is {size}; it has to divide the width of all heads, {d_inner}")
    return heads
