"""The table as GitHub Markdown."""

import re

from bench.report.layout import Block, Cell, Row, Table


def to_markdown(table: Table) -> str:
    """All blocks, each a heading, a table and its notes."""
    parts = [escape(table.context) + "\n"] if table.context else []
    parts += [_block(block) for block in table.blocks]
    return "\n".join(parts)


def _block(block: Block) -> str:
    lines = [f"### {escape(block.title)}", ""]
    if block.context:
        lines += [escape(block.context), ""]
    lines.append(_line([escape(column.title) for column in block.columns]))
    lines.append(_line([":--" if c.align == "left" else "--:" for c in block.columns]))
    lines += [_line([_cell(cell, row) for cell in row.cells]) for row in block.rows]
    lines.append("")
    for note in block.notes:
        mark = f"{escape(note.mark)}: " if note.mark else ""
        lines.append(f"- {mark}{escape(note.text)}")
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(cell: Cell, row: Row) -> str:
    text = escape(cell.text)
    if text and cell.bold:
        text = f"**{text}**"
    elif text and row.dim:
        text = f"*{text}*"
    return text + escape(cell.superscript)


def escape(text: str) -> str:
    """Text that Markdown shows as it is, also within a table."""
    return re.sub(r"([\\`*_|<>\[\]#~])", r"\\\1", " ".join(text.split()))
