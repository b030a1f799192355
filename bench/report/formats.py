"""Numbers and reasons as short text."""

import math
import re

from bench.errors import one_line

MISSING = "—"
SHORT = (
    ("OOM", r"out of memory|memory limit|memory_limit|\boom\b|cannot allocate"),
    ("time-out", r"time.?out|timed out|time limit"),
    ("NaN", r"\bnan\b|not finite|non-finite|diverged"),
    ("killed", r"\bkilled\b|signal"),
)


def significant(value: float, digits: int = 3) -> str:
    """`digits` significant digits without an exponent where that stays short."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else MISSING
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent > 6:
        return f"{value:.{digits - 1}e}"
    rounded = round(value, digits - 1 - exponent)
    if rounded and math.floor(math.log10(abs(rounded))) > exponent:
        exponent += 1  # 9.999 becomes 10.0, not 10.00
    return f"{rounded:.{max(0, digits - 1 - exponent)}f}"


def count(value: float) -> str:
    """A count of parameters: 251k, 15.0M, 1.20G."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit * 0.9995:
            return significant(value / limit) + unit
    return f"{value:.0f}"


def score(value: float, half: float | None, bound: bool, decimals: int = 3) -> str:
    """A score with its interval; an upper bound is marked."""
    text = f"{'≤' if bound else ''}{value:.{decimals}f}"
    if half is None:
        return text
    return f"{text} ± {half:.{decimals}f}"


def shorten(reason: str, status: str, width: int) -> tuple[str, bool]:
    """A reason in at most `width` characters, and whether a footnote must say the rest."""
    words = one_line(reason)
    if words and len(words) <= width:
        return words, False
    if status == "unsupported":
        return "n/a", True
    for name, pattern in SHORT:
        if re.search(pattern, words, re.IGNORECASE):
            return name, True
    return "failed", True


def limit(text: str, length: int = 240) -> str:
    """One line of at most `length` characters."""
    words = one_line(text)
    return words if len(words) <= length else words[: length - 1] + "…"


def percent(share: float) -> str:
    """A relative change in percent, 0.05 as +5.0%; from tenfold on as a factor."""
    return f"×{significant(share + 1)}" if share >= 9 else f"{share:+.1%}"
