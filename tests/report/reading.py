"""Finding things in a table that was built."""

import io

from rich.console import Console

from bench.report.layout import Block, Cell, Row, Table
from bench.report.terminal import show


def cell(block: Block, model: str, column: str) -> Cell:
    return row(block, model).cells[[c.key for c in block.columns].index(column)]


def row(block: Block, model: str) -> Row:
    (found,) = [r for r in block.rows if r.cells[0].text == model]
    return found


def note(block: Block, found: Cell) -> str:
    texts = {n.mark: n.text for n in block.notes}
    return " ".join(texts[mark] for mark in found.marks)


def shown(table: Table) -> str:
    console = Console(file=io.StringIO(), width=40)
    show(table, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]
