"""What a source of text offers to those who write shards."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

PIECE = 1 << 20  # bytes of text that are hashed as one; shards end where a piece does

Group = Iterable[bytes]  # the texts of one piece


@dataclass(frozen=True)
class Span:
    """From `begin` up to `end` of what `name` stands for: bytes of a file, rows of a data set."""

    name: str
    begin: int
    end: int


@dataclass(frozen=True)
class Job:
    """One shard to be written: the file's name, its split, and where its text comes from."""

    name: str
    split: str
    spans: tuple[Span, ...]


class Source(Protocol):
    """Text in three splits. It is sent to the processes that write shards."""

    name: str
    split: str  # how the splits were made, in words

    def facts(self) -> dict[str, Any]:
        """What tells this source from another, and from itself after a change; plain values."""
        ...

    def jobs(self, shard_bytes: int) -> list[Job]:
        """The shards of about `shard_bytes` of text (a multiple of `PIECE`), split by split."""
        ...

    def groups(self, job: Job) -> Iterator[Group]:
        """The text of a shard, piece by piece, at whole characters; ValueError where it fails.

        Pieces do not depend on the size of shards.
        """
        ...


def named(split: str, jobs: Iterable[tuple[Span, ...]]) -> list[Job]:
    """The shards of a split by their numbers."""
    return [Job(f"{split}-{n:05}.bin", split, spans) for n, spans in enumerate(jobs)]
