"""index.json of a prepared folder: what the shards are, and whether they are whole."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.store.files import put
from bench.tasks.splits import SPLITS

INDEX = "index.json"
PLAN = "plan.json"  # of a preparation that is not finished
FORMAT, VERSION = "archbench-shards", 1
DTYPES = {"uint8": 1, "uint16": 2, "uint32": 4}
COMMAND = "python -m bench.prepare"


@dataclass(frozen=True)
class Shard:
    """One file: its name, its symbols, the SHA-256 of its bytes."""

    name: str
    symbols: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """A split: the type of its symbols, its shards in order, and the bytes of text they stand for.

    `bytes` differs from the symbols where a tokenizer made these.
    """

    dtype: str
    bytes: int
    shards: tuple[Shard, ...]

    @property
    def symbols(self) -> int:
        """Of all shards."""
        return sum(shard.symbols for shard in self.shards)


@dataclass(frozen=True)
class Index:
    """A prepared folder.

    `sha256` is that of the text: over the SHA-256 of its pieces of a MiB, in order, part by part.
    It depends on neither the number of shards nor on a tokenizer, so that figures of one text are
    comparable. `request` is what was asked for when it was prepared.
    """

    name: str
    sha256: str
    split: str
    vocab_size: int
    tokenizer: dict[str, str] | None  # its name and the hash of what it makes of a fixed text
    parts: dict[str, Part]
    request: dict[str, Any] = field(default_factory=dict)


def write(folder: Path, index: Index) -> None:
    """Write index.json whole or not at all."""
    content = {"format": FORMAT, "version": VERSION, **asdict(index)}
    put(folder / INDEX, [json.dumps(content, indent=1).encode()])


def read(folder: Path, key: str) -> Index:
    """The index of a folder whose shards are all there and as long as it says.

    Contents are for `bench.shards.verify`. ValueError with one sentence that begins with `key`.
    """
    text = _text(folder, key)
    try:
        index = _parsed(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{key} cannot be used: its {INDEX} is damaged ({type(error).__name__}: {error}); "
            f"allowed is a folder made by `{COMMAND}`"
        ) from error
    for part in index.parts.values():
        for shard in part.shards:
            _check_size(folder, shard, part.dtype, key)
    return index


def _text(folder: Path, key: str) -> str:
    try:
        return (folder / INDEX).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        begun = (folder / PLAN).is_file()
        what = "is not finished; the same command goes on with it" if begun else f"has no {INDEX}"
        raise ValueError(
            f"{key} {what}; allowed is a folder made by `{COMMAND} FOLDER --path TEXT`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"{key} cannot be read ({INDEX}: {reason}); allowed is a folder made by `{COMMAND}`"
        ) from error


def _parsed(found: dict[str, Any]) -> Index:
    if (found.pop("format"), found.pop("version")) != (FORMAT, VERSION):
        raise ValueError(f"it is not {FORMAT} of version {VERSION}")
    parts = {}
    for split in SPLITS:
        given = found["parts"][split]
        if given["dtype"] not in DTYPES:
            raise ValueError(f"{split} is {given['dtype']}; known are {', '.join(DTYPES)}")
        shards = tuple(Shard(**shard) for shard in given["shards"])
        for shard in shards:
            if type(shard.symbols) is not int or shard.symbols < 1 or "/" in shard.name:
                raise ValueError(f"{shard.name} is no shard of {shard.symbols} symbols")
        parts[split] = Part(given["dtype"], int(given["bytes"]), shards)
    return Index(**{**found, "parts": parts})


def _check_size(folder: Path, shard: Shard, dtype: str, key: str) -> None:
    wanted = shard.symbols * DTYPES[dtype]
    try:
        size = (folder / shard.name).stat().st_size
    except OSError as error:
        raise ValueError(
            f"{key} is damaged: {shard.name} cannot be read ({error.strerror}); {MEND}"
        ) from error
    if size != wanted:
        raise ValueError(
            f"{key} is damaged: {shard.name} has {size} bytes instead of the {wanted} of "
            f"{shard.symbols} symbols in {dtype}; {MEND}"
        )


MEND = f"`{COMMAND}` with the same arguments writes it again"
