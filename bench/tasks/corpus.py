"""Corpora that are on every machine: CPython's reference manual and its standard library.

Both belong to the running interpreter, so their id carries its version and a hash of the bytes:
figures of different ids are not comparable. Documents (a manual topic, a top-level module) go to
one part as a whole; then paragraphs that share a string of `SPAN` bytes with a part that is
held out further are dropped.
"""

import hashlib
import platform
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.tasks.base import SPLITS, digest
from bench.tasks.splits import assign

SPAN = 256  # bytes; no string of this length stands in two parts
# Trees of the standard library that are not code one would want to predict: tests, vendored or
# optional packages (absent on some distributions), and tables of data.
EXCLUDED = {
    *("idlelib", "tkinter", "turtledemo", "lib2to3", "distutils", "ensurepip"),
    *("encodings", "pydoc_data", "site-packages", "dist-packages"),
}
TESTS = {"test", "tests"}
CHUNK = 1 << 16  # windows hashed at a time: they stay in the cache, and memory stays small


@dataclass(frozen=True)
class Corpus:
    """Bytes per split with the id and the notes that belong in every record."""

    id: str
    sha256: str
    parts: dict[str, bytes]
    notes: dict[str, str] = field(default_factory=dict)


def span_hashes(data: bytes | np.ndarray) -> np.ndarray:
    """64-bit hash of every string of `SPAN` bytes, by doubling: h2k[i] = mix(hk[i], hk[i + k])."""
    h: np.ndarray = np.frombuffer(data, dtype=np.uint8).astype(np.uint64)
    length = 1
    while length < SPAN:
        if len(h) <= length:
            return np.empty(0, dtype=np.uint64)
        left, right = h[:-length], h[length:]
        # Odd multipliers and a shift, else periodic text collides under arithmetic modulo 2^64.
        h = left * np.uint64(0x9E3779B97F4A7C15) + (right ^ (right >> np.uint64(29))) * np.uint64(
            0xBF58476D1CE4E5B9
        )
        h ^= h >> np.uint64(32)
        length *= 2
    return h


def matches(data: bytes, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Offsets in `data` whose string of `SPAN` bytes has a hash in the sorted `wanted`, and it."""
    # A bitmap of the low bits first: nearly every window ends there, and a search costs more.
    low = np.uint64((1 << 24) - 1)
    bitmap = np.zeros(1 << 24, dtype=bool)
    bitmap[wanted & low] = True
    for start in range(0, len(data) if len(wanted) else 0, CHUNK):
        hashes = span_hashes(data[start : start + CHUNK + SPAN - 1])
        candidates = np.flatnonzero(bitmap[hashes & low])
        hashes = hashes[candidates]
        at = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        equal = wanted[at] == hashes
        yield candidates[equal] + start, hashes[equal]


def shared_spans(data: bytes, held_out: bytes) -> np.ndarray:
    """Offsets in `data` at which a string of `SPAN` bytes starts that also stands in `held_out`."""
    found = [offsets for offsets, _ in matches(data, np.unique(span_hashes(held_out)))]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def overlap(train: bytes, test: bytes) -> float:
    """Share of the strings of `SPAN` bytes of test that stand in train.

    Memory goes with test alone: of train, whose strings may all be found, only which are seen is
    kept.
    """
    wanted, counts = np.unique(span_hashes(test), return_counts=True)
    seen = np.zeros(len(wanted), dtype=bool)
    for _, found in matches(train, wanted):
        seen[np.searchsorted(wanted, found)] = True
    return float(counts[seen].sum() / counts.sum()) if len(wanted) else 0.0


def paragraphs(document: str) -> list[str]:
    """The blocks between blank lines."""
    return [p for p in document.split("\n\n") if p.strip()]


def join(blocks: Sequence[str]) -> bytes:
    """Paragraphs as one byte string, each closed by a blank line."""
    return "".join(block + "\n\n" for block in blocks).encode("utf-8", "surrogateescape")


def without_shared(blocks: list[str], held_out: bytes) -> list[str]:
    """Drop the paragraphs that touch a string of `SPAN` bytes which also stands in `held_out`."""
    while True:
        starts = shared_spans(join(blocks), held_out)
        if not len(starts):
            return blocks
        sizes = [len(block.encode("utf-8", "surrogateescape")) + 2 for block in blocks]
        ends = np.cumsum(sizes)
        begins = ends - sizes
        # starts is sorted: block b is touched if some start lies in (begin - SPAN, end).
        low = np.searchsorted(starts, begins - SPAN, side="right")
        high = np.searchsorted(starts, ends, side="left")
        # Removal joins new neighbours, so look again until nothing is shared.
        blocks = [b for b, first, last in zip(blocks, low, high, strict=True) if first == last]


def split_documents(
    documents: Mapping[str, str], shares: Sequence[float], *, unique: bool
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Documents to bytes per split: repeats removed (`unique`), assigned whole, then purged.

    Test is kept as it is, validation gives way to test, train to both.
    """
    blocks: dict[str, list[str]] = {}
    seen: set[str] = set()
    for name in sorted(documents, key=lambda n: hashlib.sha256(n.encode()).digest()):
        blocks[name] = paragraphs(documents[name])
        if unique:
            fresh = []
            for block in (b.strip("\n") for b in blocks[name]):
                if block not in seen:
                    seen.add(block)
                    fresh.append(block)
            blocks[name] = fresh
    where = assign({name: len(join(b)) for name, b in blocks.items()}, shares)
    flat = {s: [b for name, bs in blocks.items() if where[name] == s for b in bs] for s in SPLITS}
    before = {s: len(join(flat[s])) for s in SPLITS}
    test = join(flat["test"])
    flat["validation"] = without_shared(flat["validation"], test)
    flat["train"] = without_shared(flat["train"], test + join(flat["validation"]))
    parts = {s: join(flat[s]) for s in SPLITS}
    raw = sum(len(join(paragraphs(text))) for text in documents.values())
    notes = {
        "split": f"{len(documents)} whole documents by the hash of their names, "
        f"{'/'.join(f'{100 * share:g}' for share in shares)} in bytes",
        "removed": f"{raw - sum(before.values())} bytes of repeated paragraphs, "
        + ", ".join(f"{before[s] - len(parts[s])} of {s}" for s in SPLITS[:2])
        + f" that share {SPAN} bytes with a part held out further",
    }
    return parts, notes


def manual(shares: Sequence[float]) -> Corpus:
    """The reference manual of the running CPython: the strings of `pydoc_data.topics`."""
    from pydoc_data.topics import topics

    parts, notes = split_documents(topics, shares, unique=True)
    sha256 = digest(parts)
    return Corpus(f"manual-cpython{platform.python_version()}-{sha256[:8]}", sha256, parts, notes)


def stdlib_files() -> dict[str, list[Path]]:
    """Source files of the running CPython's standard library by top-level module."""
    root = Path(sysconfig.get_path("stdlib"))
    modules: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root).parts
        if inside[0] in EXCLUDED or TESTS & set(inside[:-1]):
            continue
        modules.setdefault(inside[0].removesuffix(".py"), []).append(path)
    return modules


def code(shares: Sequence[float]) -> Corpus:
    """The source of the running CPython's standard library, split by top-level module."""
    modules = stdlib_files()
    if not modules:
        raise ValueError(
            f"task.corpus='code' needs the standard library as source, and there is none in "
            f"{sysconfig.get_path('stdlib')}; allowed is any other corpus or task.path=FILE"
        )
    documents = {
        name: "\n\n".join(p.read_text("utf-8", "surrogateescape") for p in files)
        for name, files in modules.items()
    }
    parts, notes = split_documents(documents, shares, unique=False)
    notes["files"] = str(sum(map(len, modules.values())))
    sha256 = digest(parts)
    return Corpus(f"code-cpython{platform.python_version()}-{sha256[:8]}", sha256, parts, notes)


CORPORA = {"manual": manual, "code": code}
