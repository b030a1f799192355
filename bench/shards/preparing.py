"""Prepares a folder of shards: several processes, constant memory, and what is done stays done.

Each shard is written under another name and renamed when it is whole; a line of the journal then
says what it holds. Whoever is killed goes on, by the same command, with the shards that no line
speaks of or that are not what their line says.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from bench.shards import index as form
from bench.shards.index import PLAN, VERSION, Index, Part, Shard
from bench.shards.jobs import Job, Source
from bench.shards.verify import damage
from bench.shards.writing import Writer, fingerprint, load, start, write
from bench.store.files import put
from bench.tasks.splits import SPLITS

JOURNAL = ".done.jsonl"
LOCK = ".lock"
EVERY_S = 5.0  # between lines that say how far it is
Say = Callable[[str], None]
Entry = dict[str, Any]


def prepare(
    source: Source,
    folder: Path,
    *,
    shares: Sequence[float],
    tokenizer: str | None,
    shard_bytes: int,
    workers: int,
    say: Say,
) -> Index:
    """Shards of `source` in `folder`, and their index.

    ValueError where the folder holds something else or the text cannot be read; OSError where the
    folder cannot be written.
    """
    made = None if tokenizer is None else load(tokenizer)
    vocab_size = 256 if made is None else int(made.vocab_size)
    named = None
    if tokenizer is not None:
        place = Path(tokenizer).expanduser()
        name = str(place.resolve()) if place.exists() else tokenizer
        named = {"name": name, "fingerprint": fingerprint(made)}
    request = {
        "version": VERSION,
        "source": source.facts(),
        "shares": list(shares),
        "tokenizer": named and named["fingerprint"],
        "shard_bytes": shard_bytes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_foreign(folder)
    with locked(folder):
        _agree(folder, request)
        dtype = "uint8" if vocab_size <= 1 << 8 else "uint16" if vocab_size <= 1 << 16 else "uint32"
        jobs = source.jobs(shard_bytes)
        entries = _sound(folder, _journal(folder))
        missing = [job for job in jobs if job.name not in entries]
        if len(missing) < len(jobs):
            say(f"{len(jobs) - len(missing)} of {len(jobs)} shards are there already")
        writer = Writer(source, folder, tokenizer, dtype)
        _write_all(writer, missing, entries, workers, say)
        if source.facts() != request["source"]:
            raise ValueError("the text changed while it was prepared; prepare it in a new folder")
        ordered = [entries[job.name] for job in jobs]
        index = Index(
            name=source.name,
            sha256=text_hash(ordered),
            split=source.split,
            vocab_size=vocab_size,
            tokenizer=named,
            parts={s: _part(s, dtype, ordered) for s in SPLITS},
        )
        form.write(folder, index)
        shards = [shard for part in index.parts.values() for shard in part.shards]
        for name, fault in damage(folder, shards).items():
            raise ValueError(f"{folder}: {name} {fault}; the disk does not keep what is written")
    return index


def text_hash(entries: Sequence[Entry]) -> str:
    """SHA-256 of the text: over the hashes of its pieces, split by split."""
    total = hashlib.sha256()
    for split in SPLITS:
        total.update(split.encode())
        for entry in entries:
            if entry["split"] == split:
                total.update("".join(entry["leaves"]).encode())
    return total.hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Refuse to prepare a folder that another process is preparing, where the system can tell."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(folder / LOCK, "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{folder} is being prepared by another process; wait for it") from (
                error
            )
        yield


def _refuse_foreign(folder: Path) -> None:
    others = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    if others and PLAN not in others:
        raise ValueError(
            f"{folder} is not empty (it holds {others[0]}) and was not prepared; give a new folder"
        )


def _agree(folder: Path, request: dict[str, Any]) -> None:
    """Note what was asked for, or refuse where the folder was begun for something else."""
    for left in folder.glob(".*.tmp"):  # of a process that was killed
        left.unlink(missing_ok=True)
    try:
        begun = json.loads((folder / PLAN).read_text())
    except FileNotFoundError:
        put(folder / PLAN, [json.dumps(request, indent=1).encode()])
        return
    except ValueError as error:
        raise ValueError(f"{folder} has a damaged {PLAN}; give a new folder") from error
    given = json.loads(json.dumps(request))
    if begun != given:
        changed = next(key for key in given if begun.get(key) != given[key])
        raise ValueError(
            f"{folder} was begun with another {changed} ({_short(begun.get(changed))}, now "
            f"{_short(given[changed])}); give a new folder, or the same values"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else f"{text[:157]}…"


def _journal(folder: Path) -> dict[str, Entry]:
    """What was written, by the shard's name; a line that was cut off counts for nothing."""
    entries = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / JOURNAL).read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                entries[entry["name"]] = entry
    return entries


def _sound(folder: Path, entries: dict[str, Entry]) -> dict[str, Entry]:
    """Those whose files are what their lines say."""
    faults = damage(folder, map(_shard, entries.values()))
    return {name: entry for name, entry in entries.items() if name not in faults}


def _shard(entry: Entry) -> Shard:
    return Shard(entry["name"], entry["symbols"], entry["sha256"])


def _part(split: str, dtype: str, entries: Sequence[Entry]) -> Part:
    own = [entry for entry in entries if entry["split"] == split]
    shards = tuple(_shard(entry) for entry in own if entry["symbols"])
    if not shards:
        raise ValueError(f"the text is too short: nothing is left for its {split} part")
    size = sum(entry["bytes"] for entry in own)
    return Part(dtype if split == "train" else "uint8", size, shards)


def _write_all(
    writer: Writer, jobs: Sequence[Job], entries: dict[str, Entry], workers: int, say: Say
) -> None:
    """Write the shards that are missing, and a line of the journal for each."""
    begin = last = time.monotonic()
    done = size = 0
    with open(writer.folder / JOURNAL, "a") as journal:
        journal.write("\n")  # behind a line that was cut off
        for entry in _written(writer, jobs, workers):
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
            entries[entry["name"]] = entry
            done, size = done + 1, size + entry["bytes"]
            if (now := time.monotonic()) - last >= EVERY_S or done == len(jobs):
                last = now
                rate = size / 1e6 / max(now - begin, 1e-9)
                say(f"{done} of {len(jobs)} shards, {size / 1e9:.2f} GB, {rate:.0f} MB/s")


def _written(writer: Writer, jobs: Sequence[Job], workers: int) -> Iterator[Entry]:
    """The shards' entries as they are finished."""
    if min(workers, len(jobs)) <= 1:
        yield from map(writer.write, jobs)
        return
    # Fresh interpreters: a fork would copy whatever threads and libraries the caller has.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, start, (writer,))
    try:
        with _uninterrupted():
            futures = [pool.submit(write, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that are started within it know no interrupt before `start` gives them one.

    One that came while they import would have each of them print where it stood.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
