"""The one representation of a table that every renderer draws: blocks, columns, rows, cells.

A cell carries the text to show and the raw measures behind it, so that CSV and Parquet hold
numbers while terminal, Markdown and LaTeX hold the same words.
"""

from dataclasses import dataclass, field
from typing import Any

BOLD = "Bold"  # how notes call what stands in bold
DIGITS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Measure:
    """A raw number (or a word, `label`) with its 95 % interval over `over`: seeds, items, calls."""

    metric: str
    value: float | None = None
    label: str | None = None
    unit: str = ""
    better: str = ""  # "lower", "higher" or ""
    bound: bool = False
    low: float | None = None
    high: float | None = None
    over: str = ""
    n: int | None = None


@dataclass(frozen=True)
class Cell:
    """What stands at one place; `marks` refer to the block's notes."""

    text: str = ""
    measures: tuple[Measure, ...] = ()
    bold: bool = False
    marks: tuple[str, ...] = ()
    status: str = "ok"  # "ok", "failed", "unsupported", "missing" or "" (does not apply)
    reason: str = ""
    valid: bool = True
    stale: bool = False
    records: tuple[str, ...] = ()

    @property
    def superscript(self) -> str:
        """The marks as characters: numbers raised, signs as they are, commas between numbers."""
        signs = "".join(mark for mark in self.marks if not mark.isdigit())
        numbers = [mark.translate(DIGITS) for mark in self.marks if mark.isdigit()]
        return signs + "˒".join(numbers)


@dataclass(frozen=True)
class Column:
    """`head` has one entry per line; units and direction stand in it."""

    key: str
    head: tuple[str, ...]
    align: str = "right"

    @property
    def title(self) -> str:
        """The head on one line."""
        return " ".join(part for part in self.head if part)


@dataclass(frozen=True)
class Row:
    """`kind` is "model", "older" or "baseline"; the last two are dimmed."""

    kind: str
    identity: dict[str, Any]
    cells: tuple[Cell, ...]
    rule_above: bool = False

    @property
    def dim(self) -> bool:
        return self.kind != "model"


@dataclass(frozen=True)
class Note:
    """A footnote; without a mark it belongs to the whole block."""

    mark: str
    text: str


@dataclass(frozen=True)
class Block:
    """Comparable rows of one task."""

    title: str
    context: str
    identity: dict[str, Any]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Table:
    """Blocks that are not comparable with each other; `context` where all blocks share it."""

    blocks: tuple[Block, ...]
    context: str = ""
    notes: tuple[Note, ...] = field(default=())


class Notes:
    """Collects the footnotes of a block; equal texts share a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}
        self._signs: dict[str, str] = {}
        self._general: list[str] = []

    def number(self, text: str) -> str:
        """The number of the footnote with this text."""
        return self._numbers.setdefault(" ".join(text.split()), str(len(self._numbers) + 1))

    def sign(self, mark: str, text: str) -> str:
        """A sign with a fixed meaning, explained once."""
        self._signs.setdefault(mark, text)
        return mark

    def add(self, text: str) -> None:
        """A note on the block as a whole."""
        if text and text not in self._general:
            self._general.append(text)

    def renumber(self, new: dict[str, str]) -> None:
        """Give the numbered notes other numbers; those that nothing refers to are dropped."""
        kept = {text: new[mark] for text, mark in self._numbers.items() if mark in new}
        self._numbers = dict(sorted(kept.items(), key=lambda pair: int(pair[1])))

    def collect(self) -> tuple[Note, ...]:
        """All notes: general ones, signs, numbers."""
        return (
            *(Note("", text) for text in self._general),
            *(Note(mark, text) for mark, text in self._signs.items()),
            *(Note(mark, text) for text, mark in self._numbers.items()),
        )
