"""What the objectives over images ask of whoever names a length."""


def check_pixels(length: int | None, height: int, width: int) -> None:
    """An image has as many symbols as pixels: refuse any other length; None leaves it open."""
    if length not in (None, height * width):
        raise ValueError(f"length is {length}; images have {height * width} pixels")
