"""Stores into one: each id once, with its artefacts.

What the target has is not overwritten, but for an artefact that differs from the hash in its
record: a sound copy takes its place. An artefact appears by a rename once its hash is that of its
record, the record last, so a merge that was killed is simply run again: it leaves out what is there
already.
"""

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.store.files import difference, pieces, put
from bench.store.parse import Problem, read_named
from bench.store.parts import ArtefactPart
from bench.store.record import Record
from bench.store.store import Store, StoreError


@dataclass
class Merged:
    """What a merge did: ids of new records, those that were there, artefacts copied, problems."""

    added: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    artefacts: int = 0
    problems: list[Problem] = field(default_factory=list)


def merge(sources: Sequence[Store], target: Store, only: Collection[str] | None = None) -> Merged:
    """Copy what `sources` hold and `target` lacks, `only` the records of some ids.

    StoreError before anything is written where an id stands for different contents, or where a
    folder cannot be listed. Records that cannot be read, and artefacts that no source holds as
    their record states, are problems.
    """
    done = Merged()
    found = _collect([target, *sources], done)
    target.check_writable()
    for identity, (record, stores) in sorted(found.items()):
        if only is not None and identity not in only:
            continue
        (done.present if stores[0] is target else done.added).append(identity)
        for listed in record.get("artefacts") or []:
            _artefact(identity, listed, stores, target, done)
        if stores[0] is not target:
            _record(stores[0].records / f"{identity}.json", target.records)
    return done


Found = dict[str, tuple[Record, list[Store]]]


def _collect(stores: Sequence[Store], done: Merged) -> Found:
    """Every id with its record and the stores that hold it, those first that were named first."""
    found: Found = {}
    for store in stores:
        if not store.records.is_dir():
            continue  # a target that is yet to be made
        try:
            names = sorted(e.name for e in os.scandir(store.records) if e.name.endswith(".json"))
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(f"'{store.records}' cannot be listed ({reason})") from error
        for path in (store.records / name for name in names):
            try:
                record = read_named(store.records, path.name)
            except ValueError as error:
                done.problems.append(Problem(path, str(error)))
                continue
            known, holders = found.setdefault(record["id"], (record, []))
            if _content(known) != _content(record):
                raise StoreError(
                    f"'{path}' and '{holders[0].records / path.name}' have the same id and differ "
                    "in content; a record never changes, so one of them is not what was measured: "
                    "remove it, then merge again"
                )
            holders.append(store)
    return found


def _content(record: Record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _artefact(
    identity: str, listed: ArtefactPart, stores: Sequence[Store], target: Store, done: Merged
) -> None:
    """Copy one artefact from the first store whose file is what the record states."""
    name = str(listed.get("name"))
    final = target.artefacts / identity / name
    if not _plain_name(name):
        done.problems.append(Problem(final, "artefact has a name that cannot name a file"))
        return
    sentence = difference(final, listed)
    if sentence is None:
        return
    for store in stores:
        source = store.artefacts / identity / name
        problem = difference(source, listed)
        if problem is None:
            final.parent.mkdir(parents=True, exist_ok=True)
            _copy(source, final)
            done.artefacts += 1
            return
        sentence = problem if source.exists() else sentence
    done.problems.append(Problem(final, f"{sentence}; no store holds it whole"))


def _plain_name(name: str) -> bool:
    return name not in ("", ".", "..") and Path(name).name == name


def _record(source: Path, folder: Path) -> None:
    final = folder / source.name
    if not final.exists():
        _copy(source, final)


def _copy(source: Path, final: Path) -> None:
    try:
        put(final, pieces(source))
    except OSError as error:
        raise StoreError(f"'{final}' could not be written ({error.strerror or error})") from error
