"""The store: a folder of immutable records, written atomically, read tolerantly.

Layout below the root: `records/<id>.json` and `artefacts/<id>/<name>`. An id is claimed by making
its artefact folder, which exactly one process can do on any file system; the record's file appears
last, by a rename, so a reader sees a whole record or none. A writer that is killed leaves a
temporary file or a folder without a record, which readers pass over.
"""

import json
import math
import numbers
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.store.files import difference, put, sync_folder, write_artefact, write_file
from bench.store.parse import Problem, read_named, read_record
from bench.store.record import NAME, Record, validate


class StoreError(ValueError):
    """The store cannot do what was asked; the message is one sentence for the user."""


class ContentError(StoreError):
    """What was to be stored is no record: the store itself is sound, and takes the next one."""


class Store:
    """Records and artefacts below `root`."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.records = self.root / "records"
        self.artefacts = self.root / "artefacts"
        self._read: dict[str, Record] = {}  # records never change, so each is parsed once

    def check_writable(self) -> None:
        """Make the folders and write a probe into each, so that a run fails before it starts."""
        for folder in (self.records, self.artefacts):
            probe = folder / f".probe.{secrets.token_hex(8)}.tmp"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    write_file(probe, [b"probe"])
                finally:
                    probe.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(
                    f"results folder '{self.root}' cannot be written ({error.strerror or error}); "
                    "give a folder that can be made and written, on a disk with room"
                ) from error

    def write(self, record: Record, artefacts: Mapping[str, bytes | Path] | None = None) -> Path:
        """Store `record` with its artefacts for good; refuses an id that is taken.

        Numbers that JSON cannot hold (NaN, infinity) are stored as null. The list `artefacts` of
        the record is made here, with sizes and hashes.
        """
        value = plain(dict(record), "record")
        try:
            checked = validate(value)
        except ValueError as error:
            raise ContentError(f"a record that was to be written {error}") from error
        identity = checked["id"]
        for name in artefacts or {}:
            if not NAME.fullmatch(name):
                raise ContentError(f"artefact name {name!r} cannot name a file")
        final = self.records / f"{identity}.json"
        folder = self._claim(identity, final)
        try:
            checked["artefacts"] = [
                write_artefact(folder / name, content)
                for name, content in (artefacts or {}).items()
            ]
            if artefacts:
                sync_folder(folder)
            text = json.dumps(checked, ensure_ascii=False, allow_nan=False, indent=1)
            put(final, [text.encode(), b"\n"])
        except BaseException as error:
            if not final.exists():
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise _unwritable(final, error) from error
            raise
        if not artefacts:
            folder.rmdir()
        return final

    def _claim(self, identity: str, final: Path) -> Path:
        """The artefact folder of a record that is new; whoever makes it owns the id."""
        taken = StoreError(f"record '{identity}' exists in '{self.root}'; records never change")
        folder = self.artefacts / identity
        try:
            self.records.mkdir(parents=True, exist_ok=True)
            self.artefacts.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            raise taken from None
        except OSError as error:
            raise _unwritable(final, error) from error
        if final.exists():  # a record without artefacts keeps no folder
            folder.rmdir()
            raise taken
        return folder

    def read_all(self) -> tuple[list[Record], list[Problem]]:
        """All readable records in order of their ids, and a problem for each unreadable file."""
        records: list[Record] = []
        problems: list[Problem] = []
        try:
            if not self.records.exists():
                return records, problems
            names = sorted(e.name for e in os.scandir(self.records) if e.name.endswith(".json"))
        except OSError as error:
            return records, [Problem(self.records, f"cannot be listed ({error.strerror or error})")]
        for name in names:
            try:
                records.append(self._load(name))
            except ValueError as error:
                problems.append(Problem(self.records / name, str(error)))
        return records, problems

    def briefs(self) -> tuple[list[Record], list[Problem]]:
        """As `read_all`, without configurations and raw samples, and from the index: much faster.

        What is left out is listed in `bench.store.brief`.
        """
        from bench.store.index import Index

        return Index(self.root).briefs()

    def read(self, identity: str) -> Record:
        """The whole record with this id; ValueError with one sentence where it is not readable."""
        return self._load(f"{identity}.json")

    def artefact(self, record: Record, name: str) -> Path:
        """Path of an artefact of `record`, checked against the hash that the record states."""
        path = self.artefacts / record["id"] / name
        for listed in record.get("artefacts") or []:
            if listed.get("name") == name:
                sentence = difference(path, listed)
                if sentence:
                    raise StoreError(f"{path}: {sentence}")
                return path
        raise StoreError(f"record '{record['id']}' has no artefact '{name}'")

    def verify(self) -> list[Problem]:
        """Every unreadable record, and every artefact that is missing or differs from its hash."""
        records, problems = self.read_all()
        for record in records:
            for listed in record.get("artefacts") or []:
                path = self.artefacts / record["id"] / str(listed.get("name"))
                sentence = difference(path, listed)
                if sentence:
                    problems.append(Problem(path, sentence))
        return problems

    def _load(self, name: str) -> Record:
        if name not in self._read:
            self._read[name] = read_named(self.records, name)
        return self._read[name]


def locate(path: Path) -> list[Store]:
    """The stores at or below `path`: itself, its records folder, or any folder within it."""
    if (path / "records").is_dir():
        return [Store(path)]
    if path.name == "records" and path.is_dir():
        return [Store(path.parent)]
    return [Store(folder.parent) for folder in sorted(path.rglob("records")) if folder.is_dir()]


def read_paths(
    paths: Iterable[Path], *, brief: bool = False
) -> tuple[list[Record], list[Problem], list[Path]]:
    """Records of several stores or record files (each id once), problems, artefact folders.

    `brief` takes those of stores from the index, without what `bench.store.brief` leaves out.
    """
    records: dict[str, Record] = {}
    problems: list[Problem] = []
    roots: list[Path] = []
    for path in paths:
        if not path.exists():
            raise StoreError(f"'{path}' does not exist; give a results folder or a record")
        if path.is_file():
            roots.append(path.parent.parent / "artefacts")
            try:
                record = read_record(path)
                records.setdefault(record["id"], record)
            except ValueError as error:
                problems.append(Problem(path, str(error)))
            continue
        for store in locate(path):
            found, bad = store.briefs() if brief else store.read_all()
            for record in found:
                records.setdefault(record["id"], record)
            problems += bad
            roots.append(store.artefacts)
    return list(records.values()), problems, roots


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"record '{path}' could not be written ({error.strerror or error})")


def plain(value: Any, where: str) -> Any:
    """`value` in JSON's own types; numpy's scalars count as the numbers they are."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__name__ in ("bool", "bool_"):  # numpy's boolean is no number to Python
        return bool(value)
    raise ContentError(f"a record holds {type(value).__name__} at {where}, which JSON cannot hold")
