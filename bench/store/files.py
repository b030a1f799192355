"""Files that last: written through to the disk, and held against their hashes."""

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from bench.store.parts import ArtefactPart

CHUNK = 1 << 20


def write_artefact(path: Path, content: bytes | Path) -> ArtefactPart:
    """Write a file, or copy one, and describe it for its record."""
    digest, size = hashlib.sha256(), 0

    def counted() -> Iterable[bytes]:
        nonlocal size
        for piece in pieces(content):
            digest.update(piece)
            size += len(piece)
            yield piece

    write_file(path, counted())
    return {"name": path.name, "bytes": size, "sha256": digest.hexdigest()}


def pieces(content: bytes | Path) -> Iterable[bytes]:
    """Bytes, or those of a file, never more than `CHUNK` of a file at once."""
    if isinstance(content, bytes):
        yield content
        return
    with open(content, "rb") as stream:
        while piece := stream.read(CHUNK):
            yield piece


def write_file(path: Path, content: Iterable[bytes]) -> None:
    """Write a new file that lasts through a power cut; FileExistsError where there is one."""
    with open(path, "xb") as stream:
        for piece in content:
            stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())


def put(final: Path, content: Iterable[bytes]) -> None:
    """Write under another name beside `final`, then rename: readers see a whole file or none.

    What was there is replaced; the new file lasts through a power cut.
    """
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(8)}.tmp")
    try:
        write_file(temporary, content)
        os.replace(temporary, final)
        sync_folder(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; folders cannot be opened on every system."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def difference(path: Path, listed: ArtefactPart) -> str | None:
    """In what a file is not the one that its record lists, or None."""
    try:
        digest = hashlib.sha256()
        for piece in pieces(path):
            digest.update(piece)
    except OSError as error:
        return f"artefact cannot be read ({error.strerror or error})"
    if digest.hexdigest() != listed.get("sha256"):
        return "artefact differs from the hash in its record"
    return None
