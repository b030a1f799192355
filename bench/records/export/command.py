"""`export mlflow|wandb|tensorboard --to DIR`: records for a tracker; each appears there once."""

import argparse
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

from bench.arguments import Subcommands, given_path
from bench.errors import BadInput
from bench.records.export.values import Values, values_of
from bench.records.shared import add_in, add_where, rows
from bench.store.parse import read_record

TRACKERS = ("mlflow", "wandb", "tensorboard")
INSTALL = "pip install 'archbench[export]'"
# Their libraries report on how they are used unless they are told not to.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "WANDB_ERROR_REPORTING": "false",
}


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "export",
        help="pass records on to a tracker's files (extra export); nothing is sent anywhere",
    )
    parser.set_defaults(run=run)
    parser.add_argument("tracker", choices=TRACKERS)
    parser.add_argument("--to", type=given_path, required=True, metavar="DIR",
                        help="folder of the tracker's files; what is there stays")  # fmt: skip
    add_where(parser)
    add_in(parser)


def run(options: argparse.Namespace) -> int:
    """Export what is not there yet."""
    table = rows(options.paths, options.where)
    os.environ.update(QUIET)
    name = f"bench.records.export.to_{options.tracker}"
    try:
        write = importlib.import_module(name).write
    except ImportError as error:
        raise BadInput(
            f"export {options.tracker} needs the package {error.name}; install it by {INSTALL}"
        ) from error
    options.to.mkdir(parents=True, exist_ok=True)
    made = write(_values(table.column("path").to_pylist()), options.to)
    print(f"{options.to}: {made} of {table.num_rows} records exported, the others were there")
    return 0


def _values(paths: list[str]) -> Iterator[Values]:
    for path in map(Path, paths):
        yield values_of(read_record(path), path.parent.parent / "artefacts")
