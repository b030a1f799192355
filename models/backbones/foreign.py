"""What a library says of a network that it cannot make, read or run, as one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

MISFIT = "Error(s) in loading state_dict"  # a heading: the lines below it name tensors


@contextmanager
def refusing(sentence: str, advice: str = "") -> Iterator[None]:
    """Within it, whatever a library raises becomes a `ValueError` of `sentence` and what it said.

    Libraries have no common error for networks that do not see an image, so that all are caught.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(f"{sentence}: {_said(error)}{advice}") from error


def _said(error: Exception) -> str:
    """Its first line that says what is wrong, without advice on the library's own arguments."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith(MISFIT):
        lines = lines[1:]
    return (lines or [type(error).__name__])[0].partition(". If ")[0].rstrip(".")
