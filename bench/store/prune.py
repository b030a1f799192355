"""What a store can do without: records that were chosen, and what killed writers left behind.

Finding and removing are two steps: only what was found is removed, and only where it has not
changed since. A record goes before its artefacts, so that no record is left without them.
"""

import contextlib
import glob
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.store.index import NAME
from bench.store.store import Store

DAY_S = 86_400.0


@dataclass(frozen=True)
class Removable:
    """A record's file, a temporary file or an artefact folder without a record; what `why` says.

    `folder` has the artefacts that go with a record. `changed` is the file's time of change in
    nanoseconds when it was found.
    """

    path: Path
    why: str
    bytes: int
    changed: int
    folder: Path | None = None


def of_record(store: Store, identity: str, why: str) -> Removable | None:
    """A record with its artefacts; None where it is gone."""
    path, folder = store.records / f"{identity}.json", store.artefacts / identity
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    whole = status.st_size + _size(folder)
    return Removable(
        path,
        why,
        whole,
        status.st_mtime_ns,
        folder if folder.is_dir() and not folder.is_symlink() else None,
    )


def leftovers(store: Store, now: float | None = None) -> list[Removable]:
    """Temporary files, and artefact folders without a record, untouched for more than a day."""
    limit = int(((time.time() if now is None else now) - DAY_S) * 1e9)
    found = [_leftover(path, "temporary file") for path in _temporary(store)]
    if store.artefacts.is_dir():
        found += [
            _leftover(folder, "artefacts without a record")
            for folder in sorted(store.artefacts.iterdir())
            if folder.is_dir() and not folder.is_symlink()
            and not os.path.lexists(store.records / f"{folder.name}.json")
        ]  # fmt: skip
    return [item for item in found if item is not None and item.changed < limit]


def _temporary(store: Store) -> Iterator[Path]:
    """Files under names that writers give before the rename."""
    yield from _matching(store.root, f".{NAME}.*.tmp")
    yield from _matching(store.records, ".*.tmp")
    yield from _matching(store.artefacts, ".*.tmp")
    for path in _matching(store.artefacts, "*/.*.tmp"):
        if os.path.lexists(store.records / f"{path.parent.name}.json"):
            yield path  # else it goes with its folder


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Sorted; writers remove folders meanwhile, which `Path.glob` does not bear."""
    return [folder / name for name in sorted(glob.glob(pattern, root_dir=folder))]


def _leftover(path: Path, why: str) -> Removable | None:
    """None where a writer has renamed or removed it, or some of it, since it was listed."""
    try:
        return Removable(path, why, _size(path), _changed(path))
    except FileNotFoundError:
        return None


def remove(found: Iterable[Removable]) -> tuple[list[Removable], list[Removable]]:
    """Remove what was found; what has changed since, or is gone, is given back as the second."""
    removed: list[Removable] = []
    kept: list[Removable] = []
    for item in found:
        try:
            same = _changed(item.path) == item.changed
        except FileNotFoundError:
            same = False
        if not same:
            kept.append(item)
            continue
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink()
            if item.folder is not None:
                shutil.rmtree(item.folder)
        removed.append(item)
    return removed, kept


def _changed(path: Path) -> int:
    """The latest time of change, in nanoseconds, of a file or of a folder and all within."""
    return max(p.lstat().st_mtime_ns for p in (path, *_within(path)))


def _size(path: Path) -> int:
    total = 0
    for p in (path, *_within(path)):
        with contextlib.suppress(FileNotFoundError):
            status = p.lstat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def _within(path: Path) -> Iterator[Path]:
    """All that a folder holds at any depth; nothing of a file, or of what goes meanwhile."""
    for folder, folders, files in os.walk(path):
        yield from (Path(folder, name) for name in (*folders, *files))
