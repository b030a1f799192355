"""`merge`, `verify` and `index`: stores joined, held against their hashes, and read anew."""

import argparse
import sys
from pathlib import Path

from bench.arguments import Subcommands, add_paths, given_path
from bench.errors import BadInput
from bench.records.shared import complain, stores_at
from bench.store import Store
from bench.store.index import Index
from bench.store.merge import merge


def add(commands: Subcommands) -> None:
    """The arguments of the three."""
    merging = commands.add_parser(
        "merge", help="copy the records and artefacts of stores into another, each id once"
    )
    merging.set_defaults(run=run_merge)
    merging.add_argument("sources", nargs="+", type=given_path, metavar="SOURCE")
    merging.add_argument(
        "target", type=given_path, metavar="TARGET", help="made where it is missing"
    )
    verifying = commands.add_parser(
        "verify", help="name unreadable records and artefacts that are missing or differ"
    )
    verifying.set_defaults(run=run_verify)
    add_paths(verifying)
    indexing = commands.add_parser("index", help="bring index.parquet up to date")
    indexing.set_defaults(run=run_index)
    add_paths(indexing)
    indexing.add_argument("--rebuild", action="store_true", help="from the records alone")
    indexing.add_argument("--columns", action="store_true", help="print the columns' names")


def run_merge(options: argparse.Namespace) -> int:
    """Merge; returns 1 where something could not be taken along."""
    sources = [store for path in options.sources for store in stores_at(path)]
    target = Store(options.target)
    if any(_same(source.root, target.root) for source in sources):
        raise BadInput(f"'{options.target}' is a source and the target; give another target.")
    done = merge(sources, target)
    complain(done.problems)
    print(
        f"{options.target}: {len(done.added)} records added, {len(done.present)} were there, "
        f"{done.artefacts} artefacts copied, {len(done.problems)} problems"
    )
    return 1 if done.problems else 0


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def run_verify(options: argparse.Namespace) -> int:
    """Name every problem; returns 1 where there is one."""
    count = 0
    stores = [store for path in options.paths for store in stores_at(path)]
    for store in stores:
        problems = store.verify()
        for problem in problems:
            print(problem)
        count += len(problems)
    names = ", ".join(str(store.root) for store in stores)
    print(f"{names}: {count} problems" if count else f"{names}: sound", file=sys.stderr)
    return 1 if count else 0


def run_index(options: argparse.Namespace) -> int:
    """Bring the index of each store up to date."""
    for store in (store for path in options.paths for store in stores_at(path)):
        index = Index(store.root)
        if options.rebuild:
            try:
                index.path.unlink(missing_ok=True)
            except OSError as error:
                raise BadInput(
                    f"'{index.path}' cannot be removed ({error.strerror or error})."
                ) from error
        table, problems = index.table()
        complain(problems)
        if options.columns:
            print(*sorted(table.column_names), sep="\n")
        state = "" if index.path.is_file() else "; it could not be written, so commands do without"
        print(
            f"{index.path}: {table.num_rows} records, {table.num_columns} columns{state}",
            file=sys.stderr if options.columns else sys.stdout,
        )
    return 0
