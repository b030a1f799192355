"""`prune [STORE]`: what can go; a dry run unless --yes is given."""

import argparse
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from bench.arguments import RESULTS, Subcommands, given_path
from bench.errors import BadInput
from bench.identity import source_hash
from bench.records.conditions import parse, select
from bench.records.shared import add_where, complain, one_store, size
from bench.store import Store
from bench.store.prune import Removable, leftovers, of_record, remove
from bench.store.tables import read_table

OURS = ("bench", "models", "torch")
Row = dict[str, Any]


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "prune",
        help="show which records and leftovers can go, and remove them with --yes",
        description=(
            "Chosen are the records that are stale or failed (with neither option: all) and meet "
            "--where, less the newest N of each cell. Without any option none is. Temporary files "
            "and artefacts without a record are leftovers once they are a day old."
        ),
    )
    parser.set_defaults(run=run)
    parser.add_argument("store", nargs="?", type=given_path, default=RESULTS, metavar="STORE")
    parser.add_argument("--stale", action="store_true",
                        help="made by source that differs from today's")  # fmt: skip
    parser.add_argument("--failed", action="store_true", help="cells that failed")
    parser.add_argument("--keep", type=int, metavar="N", help="spare the newest N of each cell")
    add_where(parser)
    parser.add_argument("--allow-targets", default="", metavar="PACKAGE,…",
                        help="as the runs were given: part of their source")  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="remove what is shown")


def run(options: argparse.Namespace) -> int:
    """Show what can go; remove exactly that with --yes."""
    if options.keep is not None and options.keep < 0:
        raise BadInput(f"--keep {options.keep} is not allowed; give 0 or more.")
    store = one_store(options.store)
    found = [*chosen(store, options), *leftovers(store)]
    for item in found:
        print(f"{item.path}  {item.why}, {size(item.bytes)}")
    total = size(sum(item.bytes for item in found))
    if not options.yes:
        print(f"{len(found)} to remove, {total}; nothing was removed, --yes removes them")
        return 0
    removed, kept = remove(found)
    for item in kept:
        print(f"{item.path}  changed meanwhile and was kept")
    print(f"{len(removed)} removed, {size(sum(item.bytes for item in removed))}")
    return 0


def chosen(store: Store, options: argparse.Namespace) -> Iterator[Removable]:
    """The records that the options choose, in order of ids."""
    conditions = parse(options.where)
    if not (options.stale or options.failed or conditions or options.keep is not None):
        return
    table, problems = read_table([store.root])
    complain(problems)
    wanted = set(select(table, conditions).column("id").to_pylist())
    rows: list[Row] = table.to_pylist()
    spared = _newest(rows, options.keep or 0)
    stale = _stale(store, tuple(filter(None, options.allow_targets.split(","))))
    for row in rows:
        why = [
            *(["stale"] if options.stale and stale(row) else []),
            *(["failed"] if options.failed and row["status"] == "failed" else []),
        ]
        if (why or not (options.stale or options.failed)) and row["id"] in wanted - spared:
            found = of_record(store, row["id"], " and ".join(why) or "chosen")
            if found is not None:
                yield found


def _newest(rows: list[Row], keep: int) -> set[str]:
    """Ids of the newest `keep` records of each cell."""
    cells: dict[tuple[Any, ...], list[tuple[datetime, str]]] = {}
    for row in rows:
        cell = {name: value for name, value in row.items() if name.startswith("cell.")}
        key = (*sorted((name, str(value)) for name, value in cell.items()),
               row.get("environment.machine_key"))  # fmt: skip
        cells.setdefault(key, []).append((row["created"], row["id"]))
    return {i for found in cells.values() for _, i in sorted(found, reverse=True)[:keep]}


def _stale(store: Store, allowed: tuple[str, ...]) -> Callable[[Row], bool]:
    """Whether a record's source is another than today's, as the runner hashes it.

    That hash covers the packages that targets may name; where none was given, those that the
    record's own configuration names are tried as well.
    """

    def judge(row: Row) -> bool:
        source = row.get("code.source_sha256")
        if source in (source_hash(), source_hash(allowed)):
            return False
        try:
            config = store.read(row["id"]).get("config")
        except ValueError:  # it went since it was listed
            return False
        named = tuple(sorted(_packages(config or {})))
        return source != source_hash(named)

    return judge


def _packages(config: Any) -> set[str]:
    """Top-level packages, other than ours, that a configuration's targets name."""
    if isinstance(config, dict):
        target = config.get("_target_")
        own = {str(target).partition(".")[0]} - set(OURS) if target else set()
        return own.union(*map(_packages, config.values()))
    return set().union(*map(_packages, config)) if isinstance(config, list) else set()
