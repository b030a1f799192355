"""`python -m bench.report COMMAND`: what reads records and measures nothing.

Exit code 0: done, also where some files could not be read (they are named on stderr). Exit code 2:
a path is missing, nothing in it is readable, or the output cannot be written. 130: interrupted. A
command that gives other codes says so in its --help.
"""

import argparse
import sys
from collections.abc import Sequence

from bench.arguments import parser_of
from bench.errors import BadInput
from bench.report.commands import (
    baseline,
    compare,
    context,
    differences,
    energy,
    frontier,
    grid,
    history,
    latency,
    memory,
    plot,
    roofline,
    table,
    target,
)
from bench.report.commands.reading import complain
from bench.store import StoreError

COMMANDS = (
    table, differences, target, grid, latency, memory, energy, roofline, context, frontier, plot,
    compare, history, baseline,
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The arguments of `python -m bench.report`."""
    return parser_of("python -m bench.report", __doc__, COMMANDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (BadInput, StoreError, OSError) as error:
        complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        complain("interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
