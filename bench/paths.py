"""What a path of the user means: a file, a folder of files, or a glob."""

import glob
from collections.abc import Iterable
from pathlib import Path


def matches(text: str) -> list[Path]:
    """The path itself where there is one, else all that it matches as a glob, `**` included."""
    place = Path(text).expanduser()
    if place.exists():
        return [place]
    return sorted(Path(found) for found in glob.glob(str(place), recursive=True))


def files_of(found: Iterable[Path]) -> list[Path]:
    """The files among `found` and below its folders; pipes and devices are none."""
    below = (p for path in found for p in (path.rglob("*") if path.is_dir() else [path]))
    return sorted(p for p in below if p.is_file())
