"""`python -m bench.ab --base REV [--head REV] [KEY=VALUE …]`: is head slower than base?

Checks both revisions out into work trees, measures every cell in fresh interpreters in turns
(A B B A), judges at 10, 14 and 20 processes a side with an error of 1 % spent over these looks, and
stops as soon as every verdict is safe or the budget is spent. KEY=VALUE are those of
`python -m bench`; the default is one training step of the Transformer.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.ab.duel import Cell, Duel
from bench.ab.findings import findings
from bench.ab.keep import record_of, stores
from bench.ab.sample import Sample, Side, plan
from bench.ab.trees import HERE, sides
from bench.checks import parse_duration
from bench.errors import BadInput, one_line
from bench.report.compare.verdict import exit_code
from bench.store import StoreError

DEFAULT = ("model=transformer", "task=text", "scenario=train")
SAME = ("model", "size", "task", "scenario", "seed", "device", "dtype", "threads", "compile")


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    top = argparse.ArgumentParser(
        prog="python -m bench.ab",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--base", required=True, metavar="REV", help="commit, branch or tag")
    top.add_argument(
        "--head", default=HERE, metavar="REV", help="the same, or . for this checkout as it stands"
    )
    top.add_argument("--budget", metavar="TIME", help="such as 3min; none: up to 20 a side")
    top.add_argument("--timeout", type=float, default=900.0, metavar="S", help="of one process")
    top.add_argument(
        "--results", type=Path, default=Path("results/ab"), metavar="DIR",
        help="where the records of both sides are kept (results/ab)",
    )  # fmt: skip
    top.add_argument("cells", nargs="*", metavar="KEY=VALUE", help=f"default: {' '.join(DEFAULT)}")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; returns the exit code of the gravest verdict."""
    options = parser().parse_args(arguments)
    try:
        return _run(options)
    except (BadInput, StoreError) as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; every finished sample is kept", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    budget = parse_duration("--budget", options.budget)
    if not options.timeout > 0:
        raise BadInput(f"--timeout={options.timeout:g} is too small; allowed: seconds above 0.")
    with sides(options.base, options.head) as both:
        cells, alone = _cells(both, options.cells or DEFAULT)
        kept = stores(options.results, both)

        def keep(place: int, cell: Cell, sample: Sample) -> None:
            kept[place].write(record_of(both[place], cell.requests[place], sample))

        duel = Duel(both, cells, timeout=options.timeout, budget=budget, seen=keep, say=_say)
        rule, ending = duel.run()
    found = findings(rule, cells)
    console = Console(highlight=False)
    for finding in found:
        console.print(f"{finding.verdict}: {finding.reason}", soft_wrap=True)
    for name in alone:
        console.print(f"on one side alone: {name}", soft_wrap=True)
    console.print(f"{ending.reason}; {ending.rounds} a side, {ending.seconds:.0f} s")
    return exit_code(found)


def _cells(both: tuple[Side, Side], words: Sequence[str]) -> tuple[list[Cell], list[str]]:
    """The cells that both sides have, and the names of those that one side has alone."""
    found = [{_name(request): request for request in plan(side, words)} for side in both]
    common = [name for name in found[0] if name in found[1]]
    if not common:
        raise BadInput("no cell is there on both sides; see `python -m bench plan=true` of each.")
    cells = [Cell(name, (found[0][name], found[1][name])) for name in common]
    return cells, sorted(found[0].keys() ^ found[1].keys())


def _name(request: dict[str, object]) -> str:
    names = [str(request[key]) for key in SAME[:4] if request.get(key)]
    words = [f"{key}={request[key]}" for key in SAME[4:] if request.get(key)]
    return " · ".join(names) + " (" + " ".join(words) + ")"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
