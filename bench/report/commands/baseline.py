"""`baseline update HEAD --to FOLDER`: accept records as what later ones are held against.

Copied are the records of the newest source of every cell, without their artefacts. The baseline
that was there is kept beside it as FOLDER.previous.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.arguments import RESULTS, Subcommands, given_path
from bench.console import make_console
from bench.errors import BadInput
from bench.report.commands.reading import read, results_folder
from bench.report.compare.cells import newest
from bench.report.compare.floors import NOISE
from bench.store import Record, Store

BASELINE = RESULTS / "baseline"


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "baseline", help="accept records as the new baseline", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    update = actions.add_parser("update", help="replace the baseline by the records of HEAD")
    update.add_argument("head", type=given_path, metavar="HEAD", help="results folder, or a record")
    update.add_argument(
        "--to", type=given_path, default=BASELINE, metavar="FOLDER",
        help=f"the baseline (default: {BASELINE})",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Replace the baseline; returns the exit code."""
    records, _ = read([options.head])
    kept = [record for record in newest(records) if record["status"] == "ok"]
    if not kept:
        raise BadInput(f"'{options.head}' has no cell that ran to its end; nothing to accept")
    replace(kept, results_folder(options.head) / NOISE, options.to)
    cells = {record["key"] for record in kept}
    make_console().print(f"{options.to}: {len(kept)} records of {len(cells)} cells", soft_wrap=True)
    return 0


def replace(records: Sequence[Record], noise: Path, folder: Path) -> None:
    """Write a new baseline beside the old one, then rename both.

    Killed at any instant, either the old or the new one is whole under its name or as .previous.
    """
    previous = folder.with_name(folder.name + ".previous")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        new.chmod(0o755)
        store = Store(new)
        for record in records:
            store.write({**record, "artefacts": []})
        if noise.is_file():
            shutil.copyfile(noise, new / NOISE)
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.rename(folder, previous)
        os.rename(new, folder)
    except OSError as error:
        raise BadInput(
            f"baseline '{folder}' cannot be written ({error.strerror or error})"
        ) from error
