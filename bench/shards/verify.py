"""Shards are held against their hashes before they are used, once for each state of their files.

What was verified is kept with the size and the time of change of each file, as git's index does,
in a hidden file beside them: 5 GB are hashed once and not in every cell. Where that file cannot be
written, every use hashes again. A disk that changes bytes without changing a file's time is found
by `python -m bench.prepare FOLDER --verify` alone, which asks for every hash.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.shards.index import MEND, Index, Shard
from bench.store.files import put

SEEN = ".verified.json"
THREADS = min(4, os.cpu_count() or 1)  # hashing lets other threads run
State = list[int | str]


def verify(folder: Path, index: Index, key: str, *, again: bool = False) -> None:
    """Raise ValueError, beginning with `key`, where a shard is not what the index says.

    `again` reads those too that were verified before.
    """
    shards = [shard for part in index.parts.values() for shard in part.shards]
    for name, fault in damage(folder, shards, again=again).items():
        raise ValueError(f"{key} is damaged: {name} {fault}; {MEND}")


def damage(folder: Path, shards: Iterable[Shard], *, again: bool = False) -> dict[str, str]:
    """The shards that are not what they should be, by name, and in what."""
    seen = {} if again else _seen(folder)

    def look(shard: Shard) -> tuple[State, str | None]:
        path = folder / shard.name
        try:
            found = path.stat()
            state: State = [found.st_size, found.st_mtime_ns, shard.sha256]
            if seen.get(shard.name) == state or _hash(path) == shard.sha256:
                return state, None
        except OSError as error:
            return [], f"cannot be read ({error.strerror})"
        return [], "differs from its hash in the index"

    shards = list(shards)
    with ThreadPoolExecutor(THREADS) as pool:
        looks = {s.name: found for s, found in zip(shards, pool.map(look, shards), strict=True)}
    sound = {name: state for name, (state, fault) in looks.items() if fault is None}
    if sound != seen:
        with contextlib.suppress(OSError):  # a folder that cannot be written is verified each time
            put(folder / SEEN, [json.dumps(sound).encode()])
    return {name: fault for name, (_, fault) in looks.items() if fault is not None}


def _seen(folder: Path) -> dict[str, State]:
    try:
        found = json.loads((folder / SEEN).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _hash(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
