"""Commands that print a row a cell, in sheets for each machine, and write one file of all."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.arguments import Subcommands, add_paths, given_path
from bench.console import make_console
from bench.errors import BadInput
from bench.report.cell_rows import by_heading, compact
from bench.report.commands.reading import read
from bench.report.sheet import Sheet, show, to_csv
from bench.store import Record

Records = Sequence[Record]


@dataclass(frozen=True)
class CellSheets:
    """Such a command.

    `shown` says which records of `scenarios` have what it shows, `missing` what to do where none
    has. `sheets` takes the records of one machine, and all that were read; `whole` makes the one
    sheet of the file.
    """

    name: str
    help: str
    scenarios: Sequence[str]
    shown: Callable[[Record], bool]
    missing: str
    sheets: Callable[[Records, Records], Sequence[Sheet]]
    whole: Callable[[Records, Records], Sheet]

    def add(self, commands: Subcommands) -> None:
        """The arguments of the command."""
        parser = commands.add_parser(self.name, help=self.help)
        parser.set_defaults(run=self.run)
        add_paths(parser)
        parser.add_argument("--csv", type=given_path, metavar="FILE", help="write the values, too")

    def run(self, options: argparse.Namespace) -> int:
        """Print the sheets of each machine; returns the exit code."""
        records, _ = read(options.paths)
        groups = by_heading([record for record in records if self.shown(record)], self.scenarios)
        if not groups:
            raise BadInput(self.missing)
        console = make_console()
        for heading, found in groups.items():
            console.print()
            console.print(heading, soft_wrap=True)
            for sheet in self.sheets(found, records):
                show(compact(sheet), console)
        if options.csv:
            every = [record for found in groups.values() for record in found]
            to_csv(self.whole(every, records), options.csv)
        return 0
