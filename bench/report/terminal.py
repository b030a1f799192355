"""The table on a terminal, 120 columns wide."""

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.layout import Block, Cell, Table

WIDTH = 120


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
    console.print(to_rich(block))
    for note in block.notes:
        mark = f"{note.mark}: " if note.mark else ""
        console.print(Text(mark + note.text, style="dim"))


def to_rich(block: Block) -> RichTable:
    """The block as a table of rich; only the first column may wrap."""
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


def _text(cell: Cell) -> Text:
    style = "bold" if cell.bold else "dim" if cell.status == "missing" or not cell.valid else ""
    if cell.status in ("failed", "unsupported"):
        style = "red" if cell.status == "failed" else "dim"
    text = Text(cell.text, style=style)
    if cell.superscript:
        text.append(cell.superscript, style="not bold")
    return text
