"""Mistakes of the user, as one sentence, and the hint at what was meant."""

import difflib
from collections.abc import Iterable, Iterator


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
    """The words with single spaces between them."""
    return " ".join(text.split())


OUT_OF_MEMORY = "out of memory: "
NO_MEMORY = ("allocate memory", "out of memory", "bad_alloc", "OUT_OF_MEMORY")


def describe(error: BaseException) -> str:
    """One line for an exception; where memory ran out it begins with `OUT_OF_MEMORY`."""
    # Names of files may hold what UTF-8 cannot: no record and no terminal would take it.
    whole = one_line(str(error)).encode("utf-8", "backslashreplace").decode()
    kind, text = type(error).__name__, whole[:500]
    prefix = OUT_OF_MEMORY if any(map(_no_memory, _causes(error))) else ""
    return f"{prefix}{kind}{': ' if text else ''}{text}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and those that it was raised from, as Hydra raises its own from a model's."""
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        step = step.__cause__ or step.__context__


def _no_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return True
    return any(words in str(error) for words in NO_MEMORY)
