"""What is refused before anything starts: folders that shadow ours, data that is not there."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cell import Cell
from bench.constants import ROOT
from bench.errors import BadInput
from bench.paths import files_of, matches

ALLOWED = "allowed: a readable file, a folder of files, or a glob"


def warn_of_shadows(*, refuse: bool) -> None:
    """Say so where a `models` or `configs` of the working directory stands before ours."""
    here = Path.cwd()
    advice = "run the command `archbench`, which does not look in the working directory"
    spec = importlib.util.find_spec("models")
    origin = Path(spec.origin).parent if spec is not None and spec.origin else None
    if origin is not None and origin.resolve() != ROOT / "models":
        sentence = f"the folder '{origin}' shadows Archbench's own package models; {advice}."
        if refuse:
            raise BadInput(sentence)
        print(f"warning: {sentence}", file=sys.stderr)
    looks_here = bool(sys.path) and Path(sys.path[0] or ".").resolve() == here
    if looks_here and here != ROOT and (here / "configs").is_dir():
        print(
            f"warning: '{here / 'configs'}' is not Archbench's and is not read "
            f"(hydra.searchpath=[configs] adds it); to be clear of the folder, {advice}.",
            file=sys.stderr,
        )


def check_paths(cells: Sequence[Cell]) -> None:
    """Refuse a data file that is missing, unreadable or empty before anything starts."""
    given = [(cell.config.get("task") or {}).get("path") for cell in cells]
    for path in given:
        if isinstance(path, list | dict):
            raise BadInput(f"task.path={path} is no path; {ALLOWED}.")
    for path in dict.fromkeys(given):
        if path is not None:
            _check_path(str(path))


def _check_path(text: str) -> None:
    found = matches(text)
    if not text.strip() or not found:
        raise BadInput(f"task.path={text} does not exist; {ALLOWED}.")
    sizes = [_readable_size(text, path) for path in files_of(found)]
    if not sizes:
        raise BadInput(f"task.path={text} holds no file (pipes and devices are none); {ALLOWED}.")
    if not sum(sizes):
        raise BadInput(f"task.path={text} is empty; {ALLOWED} that hold data.")


def _readable_size(text: str, path: Path) -> int:
    """Bytes of a file that can be read; permission is known only by opening it."""
    try:
        with open(path, "rb") as stream:
            stream.read(1)
        return path.stat().st_size
    except OSError as error:
        raise BadInput(
            f"task.path={text} cannot be read ({path}: {error.strerror}); {ALLOWED}."
        ) from error
