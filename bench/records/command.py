"""`python -m bench records COMMAND`: what works on stores and measures nothing.

Exit code 0: done. 1: `verify` found a problem, or `merge` could not take everything along. 2: a
path, a key or a query is wrong; one sentence says which.
"""

import argparse
from collections.abc import Sequence

from bench.arguments import parser_of
from bench.errors import BadInput
from bench.records import keeping, listing, prune, sql
from bench.records.export import command as export
from bench.store import StoreError

COMMANDS = (listing, keeping, prune, sql, export)


def parser() -> argparse.ArgumentParser:
    """The arguments of `python -m bench records`."""
    return parser_of("python -m bench records", __doc__, COMMANDS)


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code, BadInput is for the caller."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except StoreError as error:
        raise BadInput(str(error)) from error
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise BadInput(str(error)) from error
