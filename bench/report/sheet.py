"""A plain sheet: a title, named columns, rows of values and their text, notes.

The commands that show one quantity in depth (latency, memory, cost, context, verdicts) build a
sheet; here it becomes a table on a terminal, Markdown, or CSV with the raw values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.errors import BadInput
from bench.report.formats import MISSING

Value = str | float | int | None
WIDTH = 120


@dataclass(frozen=True)
class Entry:
    """One value and how it reads; a missing value reads as a dash, or as the reason for it."""

    value: Value
    text: str = ""
    style: str = ""  # rich's words, such as "bold" or "red"

    def __str__(self) -> str:
        return self.text or (MISSING if self.value is None else str(self.value))


@dataclass(frozen=True)
class Sheet:
    """`columns` are heads with their units, such as "step ms"; rows are as long as they are."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    notes: Sequence[str] = field(default=())


def show(sheet: Sheet, console: Console) -> None:
    """Print the sheet at 120 columns or more; numbers are never cut off."""
    width = console.width
    console.width = max(width, WIDTH)
    try:
        console.print(Text(sheet.title, style="bold"))
        console.print(_drawn(sheet))
        for note in sheet.notes:
            console.print(Text(note, style="dim"))
    finally:
        console.width = width


def _drawn(sheet: Sheet) -> RichTable:
    drawn = RichTable(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style=""
    )
    for place, head in enumerate(sheet.columns):
        text = place == 0 or all(isinstance(row[place].value, str | None) for row in sheet.rows)
        drawn.add_column(
            Text(head), justify="left" if text else "right", no_wrap=not text, overflow="fold"
        )
    for row in sheet.rows:
        drawn.add_row(*(Text(str(entry), style=entry.style) for entry in row))
    return drawn


def to_markdown(sheet: Sheet) -> str:
    """The sheet for a pull request or a page."""
    lines = [f"### {sheet.title}", "", _line(sheet.columns), _line(["---"] * len(sheet.columns))]
    lines += [_line([str(entry) for entry in row]) for row in sheet.rows]
    lines += ["", *(f"{note}  " for note in sheet.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(word.replace("|", r"\|") for word in words) + " |"


def to_csv(sheet: Sheet, path: Path) -> None:
    """Write the raw values; BadInput where the file cannot be written."""
    values = [[entry.value for entry in row] for row in sheet.rows]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pandas.DataFrame(values, columns=list(sheet.columns)).to_csv(path, index=False)
    except OSError as error:
        raise BadInput(f"'{path}' cannot be written ({error.strerror or error})") from error
