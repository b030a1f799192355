"""Where text for people goes: a terminal, a pipe or a file."""

from typing import TextIO

from rich.console import Console


def make_console(file: TextIO | None = None, *, stderr: bool = False) -> Console:
    """A console that prints every text as it stands; colours come from styles alone.

    What is printed holds paths, subjects of commits and messages of libraries. With rich's markup a
    `[word]` of theirs would vanish and a `[/word]` raise, and `:bug:` would become a picture.
    """
    return Console(file=file, stderr=stderr, highlight=False, markup=False, emoji=False)
