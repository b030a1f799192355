"""Bytes that the user names: a file, a folder, a glob, or a data set of the Hugging Face hub."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from bench.paths import files_of, matches
from bench.tasks.base import SPLITS, digest
from bench.tasks.corpus import SPAN, Corpus, overlap
from bench.tasks.hub import load_hub
from bench.tasks.splits import cuts

OVERLAP_BYTES = 1 << 24  # of test: hashes of all of a large text would not fit into memory
ALLOWED = "a readable file, a folder with files, or a glob that matches files"


def named_files(path: str) -> list[Path]:
    """The files that `path` means, sorted. Raises `ValueError` where there are none."""
    found = matches(path)
    files = files_of(found)
    if not files:
        what = "holds no files" if found else "does not exist"
        raise ValueError(f"task.path={path} {what}; allowed is {ALLOWED}")
    return files


def read_files(path: str) -> tuple[bytes, int]:
    """The bytes of all files that `path` means, one after another, and the number of files."""
    files = named_files(path)
    try:
        data = b"".join(p.read_bytes() for p in files)
    except OSError as error:
        raise ValueError(
            f"task.path={path} is unreadable ({error.strerror}: {error.filename}); "
            f"allowed is {ALLOWED}"
        ) from error
    if not data:
        raise ValueError(f"task.path={path} is empty; allowed is {ALLOWED} with bytes in it")
    return data, len(files)


def contiguous(data: bytes, shares: Sequence[float]) -> dict[str, bytes]:
    """Cut in three at the cumulative shares, in order."""
    ends = cuts(len(data), shares)
    return {s: data[a:b] for s, (a, b) in zip(SPLITS, itertools.pairwise(ends), strict=True)}


def overlap_note(parts: dict[str, bytes]) -> str:
    """How much of test also stands in train, in words for the record."""
    if len(parts["test"]) < SPAN:
        return f"not measured: test is shorter than {SPAN} bytes"
    share = overlap(parts["train"], parts["test"][:OVERLAP_BYTES])
    of = (
        "test"
        if len(parts["test"]) <= OVERLAP_BYTES
        else f"the first {OVERLAP_BYTES} bytes of test"
    )
    return f"{100 * share:.2f} % of the {SPAN}-byte strings of {of} stand in train"


def from_path(path: str, shares: Sequence[float]) -> Corpus:
    """A corpus of the user's own files, split contiguously."""
    data, count = read_files(path)
    parts = contiguous(data, shares)
    sha256 = digest(parts)
    notes = {
        "split": f"{count} file{'s' * (count > 1)} in order of name, cut in three at "
        + "/".join(f"{100 * share:g}" for share in shares),
        "overlap": overlap_note(parts),
    }
    return Corpus(f"path-{Path(path).name or 'root'}-{sha256[:8]}", sha256, parts, notes)


def from_hub(hub: str, config: str | None, column: str, shares: Sequence[float]) -> Corpus:
    """The text column of a data set: its own three splits if it has them, else cut in three."""
    found = load_hub(hub, config)
    texts = {}
    for name, rows in found.items():
        if column not in rows.column_names:
            raise ValueError(
                f"task.hub_column={column} is not in {hub}; allowed are "
                f"{', '.join(rows.column_names)}"
            )
        values = [value for value in rows[column] if value is not None]
        if not all(isinstance(value, str) for value in values):
            raise ValueError(
                f"task.hub_column={column} of {hub} holds no text; allowed is a column of strings"
            )
        # Wikitext's rows are lines that carry their line break; other sets' rows do not.
        texts[name] = "".join(v if v.endswith("\n") else v + "\n" for v in values).encode()
    if set(SPLITS) <= set(texts):
        parts = {s: texts[s] for s in SPLITS}
        split = "the data set's own"
    else:
        parts = contiguous(b"".join(texts.values()), shares)
        split = "rows in order, cut in three at " + "/".join(f"{100 * s:g}" for s in shares)
    sha256 = digest(parts)
    name = Path(hub).name + (f"-{config}" if config else "")
    notes = {"split": split, "overlap": overlap_note(parts)}
    return Corpus(f"hub-{name}-{sha256[:8]}", sha256, parts, notes)
