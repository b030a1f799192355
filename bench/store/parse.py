"""From a file to a record, or to the sentence that says why it is none."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.store.codec import Encode, decode
from bench.store.record import Record, validate


@dataclass(frozen=True)
class Problem:
    """A file that could not be read as a record, and why."""

    path: Path
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}: {self.sentence}"


def read_record(path: Path) -> Record:
    """The record in a file; ValueError with one sentence where there is none."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("is no file (a folder, a pipe or a device)")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from error
    return parse(content)[0]


def read_named(folder: Path, name: str) -> Record:
    """The record in a file of a store, which bears the record's id."""
    return _of_name(read_record(folder / name), name)


def read_regular(folder: Path, name: str) -> tuple[Record, Encode]:
    """As `read_named`, of what is known to be a file: thousands are read so.

    Also what writes parts of it as JSON again.
    """
    try:
        with open(f"{folder}/{name}", "rb", buffering=0) as stream:
            content = stream.read()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from error
    record, encode = parse(content)
    return _of_name(record, name), encode


def _of_name(record: Record, name: str) -> Record:
    if record["id"] != name.removesuffix(".json"):
        raise ValueError(f"holds the record '{record['id']}', not the one of its name")
    return record


def parse(content: bytes) -> tuple[Record, Encode]:
    """The record in a file's content, and what writes parts of it; ValueError as a sentence."""
    if not content.strip():
        raise ValueError("is empty")
    try:
        value, encode = decode(content, _refuse_constant)
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not valid JSON, perhaps truncated ({error})") from None
    return validate(value), encode


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
