"""Text of any size as token files that task `stream` memory-maps.

    python -m bench.prepare FOLDER --path TEXT            a file, a folder of files, or a glob
    python -m bench.prepare FOLDER --hub NAME             a data set, or a local folder of one
    python -m bench.prepare FOLDER --verify               hold every shard against its hash
    python -m bench task=stream task.path=FOLDER

Memory does not grow with the text. The same command goes on where one was stopped or killed, and
writes shards again that are missing or damaged. Exit code 0: done. 1: a process that wrote shards
died. 2: bad input, told in one sentence. 130: interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from bench.arguments import given_path
from bench.errors import one_line
from bench.shards import index as form
from bench.shards.files import Files
from bench.shards.hub import Hub
from bench.shards.index import Index
from bench.shards.jobs import PIECE, Source
from bench.shards.preparing import prepare
from bench.shards.verify import verify
from bench.tasks.splits import SPLITS, check_shares

SHARES = (0.98, 0.01, 0.01)
SHARD_MB = 128
# What is shared with tasks names their keys.
KEYS = {
    "task.hub_config=": "--config ", "task.hub=": "--hub ", "task.shares=": "--shares ",
    "task.tokenizer=": "--tokenizer ", "or null for bytes": "or no --tokenizer, for bytes",
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The arguments of `python -m bench.prepare`."""
    made = argparse.ArgumentParser(
        prog="python -m bench.prepare", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("folder", metavar="FOLDER", type=given_path)
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--path", help="text or any other bytes: a file, a folder, a glob")
    what.add_argument("--hub", metavar="NAME", help="data set of the Hugging Face hub (fetched)")
    what.add_argument("--verify", action="store_true", help="read every shard, change nothing")
    made.add_argument("--config", help="of the data set")
    made.add_argument("--column", default="text", help="of the data set (default: text)")
    made.add_argument("--tokenizer", help="a folder or a file; default: symbols are bytes")
    made.add_argument(
        "--shares", nargs=3, type=float, default=SHARES, metavar=("TRAIN", "VALIDATION", "TEST"),
        help=f"default: {' '.join(map(str, SHARES))}",
    )  # fmt: skip
    made.add_argument(
        "--shard-mb", type=_positive, default=SHARD_MB, metavar="MIB",
        help=f"of text in a shard (default: {SHARD_MB})",
    )  # fmt: skip
    made.add_argument(
        "--workers", type=_positive, default=os.cpu_count() or 1, metavar="N",
        help="processes that write (default: one a core)",
    )  # fmt: skip
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options = parser().parse_args(argv)
    try:
        if options.verify:
            index = form.read(options.folder, str(options.folder))
            verify(options.folder, index, str(options.folder), again=True)
        else:
            index = _prepare(options)
    except ValueError as error:
        print(f"error: {_in_words(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        reason = error.strerror or error
        print(f"error: {options.folder} cannot be written ({reason})", file=sys.stderr)
        return 2
    except BrokenProcessPool:
        print(
            "error: a process that wrote shards was ended from outside, perhaps for want of "
            "memory; the same command goes on",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    _show(options.folder, index)
    return 0


def _prepare(options: argparse.Namespace) -> Index:
    shares = check_shares(options.shares)
    source: Source
    if options.hub is None:
        source = Files(options.path, shares)
    else:
        source = Hub(options.hub, options.config, options.column, shares)
    return prepare(
        source,
        options.folder,
        shares=shares,
        tokenizer=options.tokenizer,
        shard_bytes=options.shard_mb * PIECE,
        workers=options.workers,
        say=lambda line: print(line, flush=True),
    )


def _show(folder: Path, index: Index) -> None:
    for split in SPLITS:
        part = index.parts[split]
        count = f"{len(part.shards)} shard{'s' * (len(part.shards) > 1)}"
        print(f"{split}: {part.symbols:,} symbols of {part.bytes:,} bytes, {part.dtype}, {count}")
    print(f"{index.split}\nSHA-256 of the text: {index.sha256}")
    print(f"python -m bench task=stream task.path={folder}")


def _in_words(text: str) -> str:
    """Keys of a task as this command's arguments."""
    for key, argument in KEYS.items():
        text = text.replace(key, argument)
    return one_line(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
