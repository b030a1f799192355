"""The table as LaTeX: one `table` environment a block, needing the package booktabs alone."""

import unicodedata

from bench.report.layout import Block, Cell, Row, Table

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "≤": r"$\leq$", "≥": r"$\geq$", "±": r"$\pm$",
    "×": r"$\times$", "·": r"$\cdot$", "—": "---", "–": "--", "…": r"\ldots{}",
    "†": r"$\dagger$", "‡": r"$\ddagger$", "→": r"$\rightarrow$", "≈": r"$\approx$",
    "−": r"$-$", "é": r"\'e", "É": r"\'E",
}  # fmt: skip


def to_latex(table: Table) -> str:
    """All blocks; `\\input` it after `\\usepackage{booktabs}`."""
    lines = [r"% needs \usepackage{booktabs}"]
    if table.context:
        lines.append(f"% {escape(table.context)}")
    for block in table.blocks:
        lines += ["", *_block(block, table.context)]
    return "\n".join(lines) + "\n"


def _block(block: Block, shared: str) -> list[str]:
    kinds = "".join("l" if column.align == "left" else "r" for column in block.columns)
    heads = [_head(column.head, column.align) for column in block.columns]
    lines = [
        r"\begin{table}",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape(block.title)}. {escape(block.context or shared)}}}",
        rf"\begin{{tabular}}{{@{{}}{kinds}@{{}}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
    ]
    for row in block.rows:
        if row.rule_above:
            lines.append(r"\midrule")
        lines.append(" & ".join(_cell(cell, row) for cell in row.cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if block.notes:
        lines += ["", r"\smallskip\parbox{\linewidth}{\raggedright\scriptsize"]
        for note in block.notes:
            mark = f"{escape(note.mark)}: " if note.mark else ""
            lines.append(f"{mark}{escape(note.text)}\\\\")
        lines[-1] = lines[-1].removesuffix("\\\\")
        lines.append("}")
    return [*lines, r"\end{table}"]


def _head(parts: tuple[str, ...], align: str) -> str:
    words = [escape(part) for part in parts if part]
    place = "l" if align == "left" else "r"
    lines = r" \\ ".join(words)
    return lines if len(words) == 1 else rf"\shortstack[{place}]{{{lines}}}"


def _cell(cell: Cell, row: Row) -> str:
    text = escape(cell.text)
    if text and cell.bold:
        text = rf"\textbf{{{text}}}"
    elif text and row.dim:
        text = rf"\textit{{{text}}}"
    marks = "".join(mark for mark in cell.marks if not mark.isdigit())
    numbers = ",".join(mark for mark in cell.marks if mark.isdigit())
    return text + escape(marks) + (f"$^{{{numbers}}}$" if numbers else "")


def escape(text: str) -> str:
    """Text that LaTeX prints as it is; characters it cannot print lose accents or become ?."""
    return "".join(_character(c) for c in " ".join(text.split()))


def _character(character: str) -> str:
    if character in ESCAPES:
        return ESCAPES[character]
    if character.isascii():
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(ESCAPES.get(c, c) for c in plain) or "?"
