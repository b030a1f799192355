"""Files in the store that are no records, or no longer."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.runner.faults.disks import permissions_bind
from tests.runner.faults.sweep import Sweep, Trial, Unavailable, account

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00"


def foreign(folder: Path, draw: random.Random) -> Trial:
    """Files that no sweep wrote: each is named, the table shows the rest, the sweep goes on."""
    sweep, trial = Sweep(folder, seeds=3), Trial()
    trial.expect(sweep.run(seeds=2).code == 0, "the sweep before")
    trial.before = len(sweep.seen)
    clean = _table(sweep, trial, 0, [])
    prepare, paths = _plant(sweep, draw)
    spoilt = _table(sweep, trial, 0, paths, prepare)
    trial.expect(spoilt == clean, f"the table of the rest differs: {spoilt}")
    drawn = len(sweep.ledger())
    done = sweep.run(prepare=prepare)
    trial.expect(done.code == 0, f"exit code {done.code}: {done.err[-500:]}")
    trial.expect(len(sweep.ledger()) == drawn + 2, "not exactly the new cells were measured")
    _named(trial, done.err, paths)
    account(sweep, trial, sweep.printed(done), bad=[p.name for p in paths], whole=True)
    return trial


def truncated(folder: Path, draw: random.Random, count: int = 4) -> Trial:
    """Records that lost their ends: named, left out of the table, measured again by the sweep."""
    sweep, trial = Sweep(folder), Trial()
    trial.expect(sweep.run().code == 0, "the sweep before")
    names = draw.sample(sorted(sweep.seen), count)
    # Without its last byte, a new line, a record is whole: 2 is the least that truncates one.
    lengths = [0, 1, *(draw.randrange(2, len(sweep.seen[name]) - 2) for name in names[2:])]
    lengths[-1] = len(sweep.seen[names[-1]]) - 2
    paths = [sweep.results / "records" / name for name in names]
    trial.before = len(sweep.seen) - count
    for path, length in zip(paths, lengths, strict=True):
        os.truncate(path, length)
    _table(sweep, trial, 0, paths)
    drawn = len(sweep.ledger())
    done = sweep.run()
    trial.expect(done.code == 0, f"exit code {done.code}: {done.err[-500:]}")
    trial.expect(len(sweep.ledger()) == drawn + count, "not exactly the spoilt cells were measured")
    _named(trial, done.err, paths)
    account(sweep, trial, sweep.printed(done), bad=names, whole=True)
    return trial


def nothing_readable(folder: Path) -> Trial:
    """A store in which no file is a record: each is named, and the exit code is 2."""
    sweep, trial = Sweep(folder, seeds=1), Trial()
    (sweep.results / "records").mkdir(parents=True)
    paths = [sweep.results / "records" / name for name in ("a.json", "b.json")]
    for path in paths:
        path.write_bytes(PNG)
    _table(sweep, trial, 2, paths)
    return trial


def _table(
    sweep: Sweep, trial: Trial, code: int, paths: list[Path],
    prepare: Callable[[], None] | None = None,
) -> list[str]:  # fmt: skip
    """The lines of the table; its exit code and the files that it names are held against these."""
    output = str(sweep.folder / "tables")
    done = sweep.report("table", str(sweep.results), "--output", output, prepare=prepare)
    trial.expect(done.code == code, f"exit code {done.code} of the table: {done.err[-500:]}")
    trial.expect("Traceback" not in done.err, f"a traceback: {done.err[-800:]}")
    _named(trial, done.err, paths)
    return done.out.splitlines()


def _named(trial: Trial, err: str, paths: list[Path]) -> None:
    """Each path stands in a line of its own, with a reason behind it."""
    trial.to_name += len(paths)
    for path in paths:
        shown = str(path).encode(errors="backslashreplace").decode()
        lines = [line for line in err.splitlines() if shown in line]
        if len(lines) != 1 or len(lines[0].partition(shown)[2].strip(": ;'")) < 5:
            trial.unnamed.append(f"unnamed: {shown} in {err[-2000:]!r}")


def _plant(sweep: Sweep, draw: random.Random) -> tuple[Callable[[], None] | None, list[Path]]:
    """Put one of each kind into the store; returns how to start programs, and what was put."""
    records = sweep.results / "records"
    name, content = draw.choice(sorted(sweep.seen.items()))
    whole = json.loads(content)
    contents = {
        "picture": PNG,
        "empty": b"",
        "blank": b" \n\n",
        "list": b"[1, 2]",
        "text": b'"a string"',
        "other": b'{"name": "a JSON of another kind", "version": 1}',
        "deep": b"[" * 100_000,
        "nan": content.replace(b"123.0", b"NaN"),
        "latin": '{"schema": 1, "id": "café"}'.encode("latin-1"),
        "zeros": bytes(4096),
        "copy": content,  # a record under another's name
        "newer": json.dumps({**whole, "id": "newer", "schema": 2}).encode(),
        "keyless": json.dumps({**whole, "id": "keyless", "key": None}).encode(),
        "mistyped": json.dumps({**whole, "id": "mistyped", "cell": "none"}).encode(),
        "[red]marked": PNG,
        "cut": content[: draw.randrange(2, len(content) - 2)],
    }
    paths = [records / f"{stem}.json" for stem in contents]
    for path, value in zip(paths, contents.values(), strict=True):
        path.write_bytes(value)
    more = {n: records / f"{n}.json" for n in ("folder", "dangling", "circle", "pipe", "secret")}
    more["folder"].mkdir()
    more["dangling"].symlink_to("nowhere.json")
    more["circle"].symlink_to("circle.json")
    os.mkfifo(more["pipe"])  # to read it would be to wait for ever
    try:
        prepare = permissions_bind(sweep.folder)
        shutil.copy(records / name, more["secret"])
        more["secret"].chmod(0)
    except Unavailable:  # the file would be readable
        prepare = None
        del more["secret"]
    odd = records / os.fsdecode(b"name-\xff.json")  # no text by any encoding of names
    odd.write_bytes(PNG)
    return prepare, [*paths, *more.values(), odd]
