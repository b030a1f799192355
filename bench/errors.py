"""Mistakes of the user, as one sentence, and the hint at what was meant."""

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """The message is one sentence naming the key, the value and what is allowed; exit code 2.

    Raised in a worker while it builds its task or its model, it ends the cells that share the
    fault and the exit code is 2; no record is written, since nothing was measured.
    """


def hint(value: str, allowed: Iterable[str]) -> str:
    """' Did you mean …?' where one of `allowed` is close to `value`, else nothing."""
    close = difflib.get_close_matches(value, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(key: str, value: object, allowed: Iterable[str]) -> BadInput:
    """The sentence for a value that is none of the allowed ones."""
    names = sorted(allowed)
    listed = ", ".join(names) if names else "none"
    return BadInput(f"{key}={value} is not known; allowed: {listed}.{hint(str(value), names)}")


def one_line(text: str) -> str:
    return " ".join(text.split())
