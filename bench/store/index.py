"""`index.parquet`: one row a record, so that tables need not read every record's file.

It is a cache. What stands in it counts only for files whose name, size and time of change are those
of the row; all else is read from the records again. It is written under another name and renamed,
so that several processes may write it at once (the last one stays) and a reader sees a whole one.
Missing, damaged, made by other source or in a store that cannot be written: the records say the
same.
"""

import contextlib
import functools
import gc
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pyarrow
import pyarrow.parquet

from bench.store.arrays import BRIEF, STAMP, table_of, together
from bench.store.codec import decode
from bench.store.parse import Problem
from bench.store.record import Record
from bench.store.rows import Stamp, read_rows

NAME = "index.parquet"
MARK, SEAL = b"archbench.index", b"archbench.seal"
PREFIX, BLANK = b"archbench-sha256:", b"0" * 64


@functools.cache
def mark() -> bytes:
    """The hash of the source that makes an index: what other source made is made again."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest().encode()


class Index:
    """The index of the store at `root`; every call holds it against the files that are there."""

    def __init__(self, root: Path) -> None:
        self.path = root / NAME
        self.records = root / "records"

    def briefs(self) -> tuple[list[Record], list[Problem]]:
        """Every readable record in brief, in order of ids, and what could not be read."""
        table, problems = self.table([*STAMP, BRIEF])
        with _no_collector():
            texts = table.column(BRIEF).cast(pyarrow.binary()).to_pylist()
            whole, _ = decode(b"[" + b",".join(texts) + b"]")
            return cast(list[Record], whole), problems

    def table(self, names: Sequence[str] | None = None) -> tuple[pyarrow.Table, list[Problem]]:
        """Columns (all without `names`) of every readable record, in order of ids."""
        present, problems = self._listing()
        stored = self._stored(names)
        if stored is not None and _stamps(stored) == present:
            return stored, problems
        if names is not None:
            stored = self._stored(None)
        held = {} if stored is None else _stamps(stored)
        new = {name: stamp for name, stamp in present.items() if held.get(name) != stamp}
        with _no_collector():
            fresh, unread = read_rows(self.records, new)
        kept = [held[name] == present.get(name) for name in held]
        parts = [] if stored is None else [stored.filter(pyarrow.array(kept, pyarrow.bool_()))]
        table = together([table_of([]), *parts, *fresh])
        if any(kept):
            table = table.sort_by("file")  # else all are fresh, and in order
        if not all(kept) or len(new) > len(unread):
            self._write(table)
        return table if names is None else table.select(names), problems + unread

    def _listing(self) -> tuple[dict[str, Stamp], list[Problem]]:
        """Size and time of change of each file that may be a record, in order of names."""
        found: dict[str, Stamp] = {}
        problems: list[Problem] = []
        try:
            with os.scandir(self.records) as entries:
                names = sorted(e.name for e in entries if e.name.endswith(".json"))
        except FileNotFoundError:
            return found, problems
        except OSError as error:
            return found, [Problem(self.records, f"cannot be listed ({error.strerror or error})")]
        for name in names:
            try:
                status = os.stat(f"{self.records}/{name}")
            except OSError as error:  # it went just now, or its link leads nowhere
                sentence = f"cannot be read ({error.strerror or error})"
                problems.append(Problem(self.records / name, sentence))
                continue
            if stat.S_ISREG(status.st_mode):
                found[name] = (status.st_size, status.st_mtime_ns)
            else:
                sentence = "is no file (a folder, a pipe or a device)"
                problems.append(Problem(self.records / name, sentence))
        return found, problems

    def _stored(self, names: Sequence[str] | None) -> pyarrow.Table | None:
        """The index as it lies there, or None where it cannot be used."""
        try:
            if not self.path.is_file():  # a pipe would never end
                return None
            content = self.path.read_bytes()
            if not _is_whole(content):
                return None
            with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content)) as file:
                if (file.schema_arrow.metadata or {}).get(MARK) != mark():
                    return None
                table = file.read(None if names is None else list(names))
        except (OSError, ValueError, pyarrow.ArrowException):
            return None
        return table.replace_schema_metadata(None)

    def _write(self, table: pyarrow.Table) -> None:
        """Put a new index in the place of the old one; a store that refuses it works without."""
        temporary = self.path.with_name(f".{NAME}.{secrets.token_hex(8)}.tmp")
        marked = table.replace_schema_metadata({MARK: mark(), SEAL: PREFIX + BLANK})
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(marked, sink, compression="zstd", write_statistics=False)
        try:
            try:
                temporary.write_bytes(_sealed(sink.getvalue().to_pybytes()))
                os.replace(temporary, self.path)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
        except OSError:
            return


def _sealed(content: bytes) -> bytes:
    """The file with its own hash in the place that was left blank: Parquet checks no names."""
    digest = hashlib.sha256(content).hexdigest().encode()
    return content.replace(PREFIX + BLANK, PREFIX + digest, 1)


def _is_whole(content: bytes) -> bool:
    """Whether the file is, byte for byte, the one that was sealed."""
    place = content.rfind(PREFIX) + len(PREFIX)
    end = place + len(BLANK)
    total = hashlib.sha256(content[:place] + BLANK + content[end:])
    return total.hexdigest().encode() == content[place:end]


def _stamps(table: pyarrow.Table) -> dict[str, Stamp]:
    files, sizes, times = (table.column(name).to_pylist() for name in STAMP)
    return dict(zip(files, zip(sizes, times, strict=True), strict=True))


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Without the cycle collector, which goes through all that is read and finds nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
