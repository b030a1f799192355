"""`sql "select …"`: a query over the view `records`."""

import argparse

from bench.arguments import Subcommands
from bench.errors import BadInput, one_line
from bench.records.listing import print_all, print_rows
from bench.records.shared import add_format, add_in
from bench.store.sql import connect


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser("sql", help="query the view `records` through DuckDB (extra sql)")
    parser.set_defaults(run=run)
    parser.add_argument(
        "query", metavar="QUERY",
        help='e.g. "select model, min(quality) from records where task = \'text\' group by model"',
    )  # fmt: skip
    add_in(parser)
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    """Print what the query gives; BadInput with DuckDB's own sentence where it refuses it."""
    connection = connect(options.paths)
    import duckdb

    try:
        result = connection.sql(options.query)
        table = None if result is None else result.to_arrow_table()
    except duckdb.Error as error:
        raise BadInput(f"query refused: {one_line(str(error))}") from error
    if table is None:
        raise BadInput("the query gives no rows; allowed: select, describe, show and the like.")
    if options.format == "table":
        print_rows(table.column_names, table.to_pylist())
    else:
        print_all(table, options.format)
    return 0
