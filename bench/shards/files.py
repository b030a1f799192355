"""Local files as text for shards."""

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from bench.paths import files_of, matches
from bench.shards.jobs import PIECE, Group, Job, Span, named
from bench.tasks.splits import SPLITS, assign, cuts

ALLOWED = "a readable file, a folder with files, or a glob that matches files"
NEAR = 1 << 16  # bytes in which the end of a line is looked for
CLOSE = 0.25  # how far from its share a split of whole files may be, in parts of that share


class Files:
    """Files in order of name, whole ones in each split where they are enough for its share.

    Else (one file, or few, or very unequal ones) their bytes, one file after another, are cut in
    three. Cuts lie at the end of a line where one is near, else between characters. Memory goes
    with the number of files.
    """

    def __init__(self, path: str, shares: Sequence[float]) -> None:
        found = matches(path)
        self.path, self.shares = path, list(shares)
        self.files = files_of(found)
        if not self.files:
            what = "holds no files" if found else "does not exist"
            raise ValueError(f"--path {path} {what}; allowed is {ALLOWED}")
        self.sizes = [stat.st_size for stat in self._stats()]
        if not sum(self.sizes):
            raise ValueError(f"--path {path} is empty; allowed is {ALLOWED} with bytes in it")
        self.name = f"path-{Path(path).name or 'root'}"
        self.where = self._whole_files()
        count = f"{len(self.files)} file{'s' * (len(self.files) > 1)}"
        ratio = "/".join(f"{100 * share:g}" for share in shares)
        how = "cut in three at" if self.where is None else "whole ones by the hash of their names,"
        self.split = f"{count} in order of name, {how} {ratio}"

    def facts(self) -> dict[str, Any]:
        total = hashlib.sha256()
        for file, stat in zip(self.files, self._stats(), strict=True):
            line = f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0"
            total.update(line.encode("utf-8", "surrogateescape"))
        return {
            "path": str(Path(self.path).expanduser().resolve()),
            "bytes": sum(self.sizes),
            "files": total.hexdigest(),
        }

    def jobs(self, shard_bytes: int) -> list[Job]:
        return [
            job
            for split in SPLITS
            for job in named(split, _packed(self._spans(split), shard_bytes))
        ]

    def groups(self, job: Job) -> Iterator[Group]:
        for span in job.spans:
            try:
                with open(span.name, "rb") as stream:
                    size = stream.seek(0, 2)
                    ends = [span.begin, *range(_above(span.begin), span.end, PIECE), span.end]
                    for begin, end in itertools.pairwise(boundary(stream, e, size) for e in ends):
                        stream.seek(begin)
                        yield [stream.read(end - begin)]
            except OSError as error:
                raise _unreadable(self.path, error) from error

    def _stats(self) -> list[os.stat_result]:
        try:
            return [file.stat() for file in self.files]
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _whole_files(self) -> dict[str, str] | None:
        """The split of each file, or None where whole files do not make the shares."""
        sizes = dict(zip(map(str, self.files), self.sizes, strict=True))
        root = os.path.commonpath([file.parent for file in self.files])
        short = {name: os.path.relpath(name, root) for name in sizes}  # wherever the folder lies
        found = assign({short[name]: size for name, size in sizes.items()}, self.shares)
        have = dict.fromkeys(SPLITS, 0)
        for name, size in sizes.items():
            have[found[short[name]]] += size
        for split, share in zip(SPLITS, self.shares, strict=True):
            if abs(have[split] / sum(self.sizes) - share) > CLOSE * share:
                return None
        return {name: found[short[name]] for name in sizes}

    def _spans(self, split: str) -> Iterator[Span]:
        if self.where is not None:
            for file, size in zip(self.files, self.sizes, strict=True):
                if size and self.where[str(file)] == split:
                    yield Span(str(file), 0, size)
            return
        number = SPLITS.index(split)
        first, last = cuts(sum(self.sizes), self.shares)[number : number + 2]
        before = 0
        for file, size in zip(self.files, self.sizes, strict=True):
            begin, end = max(first - before, 0), min(last - before, size)
            if begin < end:
                yield Span(str(file), begin, end)
            before += size


def boundary(stream: BinaryIO, at: int, size: int) -> int:
    """Where a text may be cut near byte `at` of `size`: after the line that holds the byte before.

    Where no line ends within `NEAR` bytes, where the next character begins. The later of two
    places never has the earlier cut.
    """
    if at <= 0 or at >= size:
        return min(max(at, 0), size)
    stream.seek(at - 1)
    ahead = stream.read(NEAR)
    line = ahead.find(b"\n")
    if line >= 0:
        return at + line
    inside = itertools.takewhile(lambda byte: byte & 0xC0 == 0x80, ahead[1:4])
    return at + sum(1 for _ in inside)


def _packed(spans: Iterator[Span], shard_bytes: int) -> Iterator[tuple[Span, ...]]:
    """Spans in groups of about `shard_bytes`, cut inside a file at multiples of a piece alone."""
    held: list[Span] = []
    left = shard_bytes
    for span in spans:
        begin = span.begin
        while begin < span.end:
            end = min(span.end, max((begin + left) // PIECE * PIECE, _above(begin)))
            held.append(Span(span.name, begin, end))
            left -= end - begin
            begin = end
            if left < PIECE:
                yield tuple(held)
                held, left = [], shard_bytes
    if held:
        yield tuple(held)


def _above(at: int) -> int:
    """The next multiple of a piece."""
    return (at // PIECE + 1) * PIECE


def _unreadable(path: str, error: OSError) -> ValueError:
    return ValueError(
        f"--path {path} is unreadable ({error.strerror}: {error.filename}); allowed is {ALLOWED}"
    )
