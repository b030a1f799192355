"""What a path of the user means: a file, a folder of files, or a glob."""

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path


def matches(text: str) -> list[Path]:
    """The path itself where there is one, else the files it matches as a glob, `**` included."""
    place = Path(text).expanduser()
    if place.exists():
        return [place]
    found = {Path(name) for name in glob.glob(str(place), recursive=True)}
    return sorted(path for path in found if path.is_file())


def files_of(found: Iterable[Path]) -> list[Path]:
    """The files among `found` and below its folders; pipes and devices are none.

    What is hidden below a folder (such as .git) is left out; a hidden file that is named is not.
    """
    return sorted(p for path in found for p in _below(path) if p.is_file())


def _below(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for inner in path.rglob("*"):
        if not any(part.startswith(".") for part in inner.relative_to(path).parts):
            yield inner
