"""`python -m bench.ab --base REV [--head REV] [KEY=VALUE …]`: is head slower than base?

Checks both revisions out into work trees, measures every cell in fresh interpreters in turns
(A B B A), judges at 10, 14 and 20 processes a side with an error of 1 % spent over these looks, and
stops as soon as every verdict is safe or the budget is spent. KEY=VALUE are those of
`python -m bench`; the default is one training step of the Transformer.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.ab.duel import Contest, Duel
from bench.ab.keep import make_stores, record_of
from bench.ab.sample import SCORED, TIMEOUT_S, Sample, Side, plan
from bench.ab.trees import HERE, sides
from bench.arguments import given_path
from bench.budgets import parse_duration
from bench.console import make_console
from bench.errors import BadInput, one_line
from bench.machine.key import machine_key
from bench.process.interrupt import polite_kills
from bench.report.compare.cells import name_of
from bench.report.compare.compare import compare
from bench.report.compare.floors import FLOORS, IN_TURNS, floors_in
from bench.report.compare.metrics import SEPARATOR
from bench.report.compare.outputs import EPILOG, add_outputs, check_outputs, emit
from bench.report.compare.verdict import Finding, gravest_first
from bench.store import Record, StoreError

DEFAULT = ("model=transformer", "task=text", "scenario=train")


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    top = argparse.ArgumentParser(
        prog="python -m bench.ab",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--base", required=True, metavar="REV", help="commit, branch or tag")
    top.add_argument(
        "--head", default=HERE, metavar="REV", help="the same, or . for this checkout as it stands"
    )
    top.add_argument("--budget", metavar="TIME", help="such as 3min; none: up to 20 a side")
    top.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="S", help="of one process")
    top.add_argument(
        "--results", type=given_path, default=Path("results/ab"), metavar="DIR",
        help="where the records of both sides are kept (results/ab)",
    )  # fmt: skip
    top.add_argument(
        "--noise", type=given_path, default=FLOORS, metavar="FILE",
        help=f"floors that `python -m bench.selftest` found ({FLOORS})",
    )  # fmt: skip
    add_outputs(top)
    top.add_argument("cells", nargs="*", metavar="KEY=VALUE", help=f"default: {' '.join(DEFAULT)}")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; returns the exit code of the gravest verdict."""
    options = parser().parse_args(arguments)
    try:
        with polite_kills():
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
    check_outputs(options)
    floors = floors_in(options.noise, IN_TURNS, given=options.noise != FLOORS)
    floor = functools.partial(floors.of, machine_key())
    with sides(options.base, options.head) as both:
        cells, alone = _cells(both, options.cells or DEFAULT)
        stores = make_stores(options.results, both)
        kept: tuple[list[Record], list[Record]] = ([], [])

        def keep(place: int, cell: Contest, sample: Sample) -> None:
            record = record_of(both[place], cell.requests[place], sample)
            stores[place].write(record)
            kept[place].append(record)

        duel = Duel(both, cells, floor, options.timeout, budget, keep, _say)
        rule, ending = duel.run()
    times = {}
    for name, judgement in rule.verdicts().items():
        cell, _, metric = name.rpartition(SEPARATOR)
        times[cell, metric] = judgement
    notes = [
        f"{ending.reason}; {ending.rounds} pairs of timed processes, {ending.seconds:.0f} s",
        f"records: {stores[0].root.parent}",
    ]
    found = gravest_first([*compare(*kept, times=times), *alone])
    return emit(found, options, make_console(), notes)


def _cells(both: tuple[Side, Side], words: Sequence[str]) -> tuple[list[Contest], list[Finding]]:
    """The cells that both sides have, and what is to be said of those that one side has alone."""
    found = [_named(plan(side, words)) for side in both]
    common = [name for name in found[0] if name in found[1]]
    if not common:
        raise BadInput("no cell is there on both sides; see `python -m bench plan=true` of each.")
    cells = [Contest(name, (found[0][name], found[1][name])) for name in common]
    gone = [
        Finding(name, "result", "not comparable", f"{name} is gone: head has no such cell")
        for name in found[0] if name not in found[1]
    ]  # fmt: skip
    new = [
        Finding(name, "result", "new", f"{name}: base has no such cell")
        for name in found[1] if name not in found[0]
    ]  # fmt: skip
    return cells, gone + new


def _named(requests: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Requests by the name of their cell; seeds are kept apart where there are scores to pair.

    A timed cell is taken at its first seed: its processes are the repetitions.
    """
    found: dict[str, dict[str, Any]] = {}
    for request in requests:
        name = name_of({"cell": request})
        if name in found and request["scenario"] == SCORED:
            name = f"{name} seed {request['seed']}"
        found.setdefault(name, request)
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
