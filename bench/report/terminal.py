"""The table on a terminal, 120 columns wide."""

from dataclasses import replace

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.layout import BOLD, Block, Cell, Row, Table

WIDTH = 120
STAR = "*"  # before a figure that would be bold, where nothing can be: a file, a pipe


def show(table: Table, console: Console) -> None:
    """Print all blocks at 120 columns or more: a number that is cut off would be a wrong one."""
    width = console.width
    console.width = max(width, WIDTH)
    try:
        if not table.blocks:
            console.print("no records")
        if table.context:
            console.print(Text(table.context, style="dim"))
        for block in table.blocks:
            _show_block(block, console)
    finally:
        console.width = width


def _show_block(block: Block, console: Console) -> None:
    console.print()
    console.print(Text(block.title, style="bold"))
    if block.context:
        console.print(Text(block.context, style="dim"))
    star = "" if console.is_terminal else STAR
    console.print(to_rich(block, star))
    for note in block.notes:
        text = f"{note.mark}: {note.text}" if note.mark else note.text
        if star and text.startswith(f"{BOLD}:"):
            text = star + text.removeprefix(BOLD)
        console.print(Text(text, style="dim"))


def to_rich(block: Block, star: str = "") -> RichTable:
    """The block as a table of rich; only the first column may wrap. `star` precedes the best."""
    block = replace(block, rows=tuple(_starred(row, star) for row in block.rows)) if star else block
    heads = [max(map(cell_len, column.head)) for column in block.columns]
    widths = [
        max([head, *(cell_len(row.cells[place].text + row.cells[place].superscript)
                     for row in block.rows)])
        for place, head in enumerate(heads)
    ]  # fmt: skip
    gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else 1
    drawn = RichTable(
        box=box.SIMPLE_HEAD,
        padding=(0, gap - 1, 0, 0),
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
        header_style="",
    )
    room = WIDTH - sum(widths[1:]) - gap * (len(widths) - 1)
    for place, column in enumerate(block.columns):
        drawn.add_column(
            Text("\n".join(column.head)),
            justify="left" if column.align == "left" else "right",
            no_wrap=place > 0,
            overflow="fold",
            width=widths[place] if place else max(8, min(widths[0], room)),
        )
    for index, row in enumerate(block.rows):
        end = index + 1 < len(block.rows) and block.rows[index + 1].rule_above
        drawn.add_row(
            *(_text(cell) for cell in row.cells),
            style="dim" if row.dim else "",
            end_section=end,
        )
    return drawn


def _starred(row: Row, star: str) -> Row:
    cells = (replace(cell, text=star + cell.text) if cell.bold else cell for cell in row.cells)
    return replace(row, cells=tuple(cells))


def _text(cell: Cell) -> Text:
    style = "bold" if cell.bold else "dim" if cell.status == "missing" or not cell.valid else ""
    if cell.status in ("failed", "unsupported"):
        style = "red" if cell.status == "failed" else "dim"
    text = Text(cell.text, style=style)
    if cell.superscript:
        text.append(cell.superscript, style="not bold")
    return text
