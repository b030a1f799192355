"""The speed table in Markdown, and its place in a file."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows.row import MIB, Result

BEGIN, END = "<!-- speed table: begin -->", "<!-- speed table: end -->"
HEADING = "### "  # of a machine's table, followed by its name
HEAD = ["row", "length", "times as fast", "asked for", "", "peak MiB, ours / theirs"]


def markdown(results: Sequence[Result]) -> str:
    """One line a row; columns are as wide as their longest cell, so it reads as plain text too."""
    lines = [HEAD, *(_cells(result) for result in results)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(map(str.ljust, cells, widths)) + " |" for cells in lines
    )  # fmt: skip


def _cells(result: Result) -> list[str]:
    row = result.row
    if result.turns is None or result.peaks is None:
        return [row.name, str(result.length), "", result.target, result.verdict, ""]
    low, high = result.turns.quartiles
    verdict = "reached" if result.reached else "**missed**"
    ratio = f"{result.turns.ratio:.2f} ({low:.2f} to {high:.2f})"
    peaks = " / ".join(f"{peak / MIB:,.1f}" for peak in result.peaks)
    return [row.name, str(result.length), ratio, result.target, verdict, peaks]


def check_place(path: Path) -> None:
    """ValueError where `write` could not put the table, known before anything is measured."""
    if path.exists():
        _parts(path)
    elif not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} for the table")


def write(path: Path, machine: str, text: str) -> None:
    """Put a machine's table between the two markers of the file, where others' stay.

    A new file is made of the markers alone.
    """
    before, inside, after = _parts(path) if path.exists() else ("", "", "\n")
    tables = _by_machine(inside)
    tables[machine] = f"\n\n{text}\n\n"
    body = "".join(f"{HEADING}{name}{table}" for name, table in tables.items())
    path.write_text(f"{before}{BEGIN}\n\n{body}{END}{after}", encoding="utf-8")


def _by_machine(inside: str) -> dict[str, str]:
    """Each table with the empty lines around it, under its machine's name."""
    found = {}
    for part in inside.strip().split(HEADING)[1:]:
        name, _, table = part.partition("\n")
        found[name] = f"\n{table.rstrip()}\n\n"
    return found


def _parts(path: Path) -> tuple[str, str, str]:
    """What stands before, between and after the markers."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no lines {BEGIN} and {END} to put the table between")
    return before, inside, after
