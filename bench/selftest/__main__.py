"""`python -m bench.selftest`: how often this instrument's verdicts are wrong, on this machine.

Takes a pool of fresh-process samples of real steps, plain and 5 % and 10 % slower, in turns;
draws comparisons from contiguous blocks of it through the whole sequential rule; runs a few live;
does the same for scores over seeds; and prints false positives, power and time, with other tools'
rules on the same samples. The noise that it saw becomes the floor of later comparisons here.

Exit code 0: the targets are met (at most 1 % false positives, 10 % found in 95 %, 5 % in 80 %,
where processes differ by no more than 1.5 %); 1: one is missed; 2: bad input; 130: interrupted.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.arguments import given_path
from bench.console import make_console
from bench.constants import ROOT
from bench.errors import BadInput, one_line
from bench.machine.environment import describe
from bench.process.interrupt import polite_kills
from bench.report.compare.floors import FLOORS, IN_TURNS, read, write
from bench.report.sheet import Sheet, show, to_markdown
from bench.selftest import floors, live, quality, summary
from bench.selftest import pool as pools
from bench.selftest.rehearse import Rehearsal, rehearse

CELLS = (("transformer", "train"), ("mamba", "decode"))
QUALITY = ("transformer", "quality")
QUIET = 0.015  # coefficient of variation up to which the targets are promised
# By slowdown: the most of A/A that may be called, the least of the others that must be.
TARGETS = dict(zip(pools.SLOWDOWNS, (0.01, 0.80, 0.95), strict=True))


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    top = argparse.ArgumentParser(
        prog="python -m bench.selftest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--rounds", type=int, default=40, help="rounds of three pairs a cell (40)")
    top.add_argument("--comparisons", type=int, default=1000, help="drawn of each kind (1000)")
    top.add_argument("--live", type=int, default=1, help="live comparisons of each kind (1)")
    top.add_argument(
        "--seeds", type=int, default=10, help="seeds of the score's pool (10; 0: none)"
    )
    top.add_argument("--seed", type=int, default=0, help="of the drawing")
    top.add_argument(
        "--pool", type=given_path, metavar="FILE", help="a saved pool instead of a new one"
    )
    top.add_argument(
        "--output", type=given_path, default=Path("results/selftest"), metavar="DIR",
        help="where the pool and the report are written (results/selftest)",
    )  # fmt: skip
    top.add_argument(
        "--noise", type=given_path, default=FLOORS, metavar="FILE",
        help=f"where the floors of later comparisons are kept ({FLOORS})",
    )  # fmt: skip
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the selftest; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        with polite_kills():
            return _run(options)
    except (BadInput, OSError) as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    _check(options)
    begin = time.monotonic()
    pool = pools.Pool.load(options.pool) if options.pool else _collect(options)
    found = floors.floors(pool, options.comparisons, options.seed)
    outcomes = [
        # Equals are judged with the least floor that there is, the others with those found here:
        # each as it is hardest.
        rehearse(pool, slowdown, options.comparisons, options.seed,
                 found[IN_TURNS] if slowdown else None)
        for slowdown in TARGETS
    ]  # fmt: skip
    console = make_console()
    told = []
    for sheet in _sheets(options, pool, found, outcomes):
        show(sheet, console)
        console.print()
        told.append(to_markdown(sheet))
    missed = _missed(pool, outcomes)
    said = "; ".join(missed) or "every target is met"
    console.print(f"{said}. {time.monotonic() - begin:.0f} s in all.", soft_wrap=True)
    text = "\n".join([*told, said + "."])
    (options.output / "selftest.md").write_text(text + "\n", encoding="utf-8")
    if machine := pool.about["environment"].get("machine_key"):
        write(options.noise, machine, found)
    return 1 if missed else 0


def _sheets(
    options: argparse.Namespace,
    pool: pools.Pool,
    found: Mapping[str, Mapping[str, float]],
    outcomes: Sequence[Rehearsal],
) -> Iterator[Sheet]:
    """Every sheet of the report as soon as it is known; the last ones are measured for it."""
    taken = [pair.wall_s for pairs in pool.pairs.values() for pair in pairs]
    yield summary.noise(pool)
    yield summary.floors(found)
    yield summary.power(pool, outcomes, sum(taken) / len(taken))
    yield summary.rivals(pool, options.comparisons, options.seed)
    if options.live:
        yield live.compare(CELLS[0], options.live, found[IN_TURNS], _say)
    if options.seeds:
        ((name, request),) = live.requests([QUALITY]).items()
        taught = quality.collect(ROOT, request, options.seeds, _say)
        yield summary.scores(taught, name, options.comparisons, options.seed)


def _check(options: argparse.Namespace) -> None:
    least = {"rounds": 20, "comparisons": 1, "live": 0, "seeds": 0}
    for name, smallest in least.items():
        if getattr(options, name) < smallest:
            raise BadInput(
                f"--{name}={getattr(options, name)} is too small; allowed: from {smallest}."
            )
    if 0 < options.seeds < quality.SEEDS:
        raise BadInput(
            f"--seeds={options.seeds} is too small; allowed: 0, or from {quality.SEEDS}."
        )
    read(options.noise)  # refuses before an hour of measuring, not after it
    options.output.mkdir(parents=True, exist_ok=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _collect(options: argparse.Namespace) -> pools.Pool:
    asked = live.requests(CELLS)
    about = {"environment": describe(next(iter(asked.values()))["threads"])}
    pool = pools.collect(ROOT, asked, options.rounds, about, _say)
    pool.save(options.output / "pool.json")
    return pool


def _missed(pool: pools.Pool, outcomes: Sequence[Rehearsal]) -> list[str]:
    """Targets that were promised and not met."""
    loud = summary.loud(pool, QUIET)
    for metric, noise in loud.items():
        _say(f"{metric}: processes differ by {noise:.1%}, where nothing is promised")
    missed = []
    for outcome in outcomes:
        target = TARGETS[outcome.slowdown]
        if outcome.slowdown == 0.0:
            if (rate := outcome.any_called / outcome.comparisons) > target:
                missed.append(f"A/A: {rate:.1%} false positives, {target:.0%} allowed")
            continue
        shares = {name: outcome.share(name, "slower") for name in outcome.verdicts}
        missed += [
            f"{outcome.slowdown:.0%} on {name}: found in {found:.0%}, {target:.0%} promised"
            for name, found in shares.items()
            if found < target and name not in loud
        ]
    return missed


if __name__ == "__main__":
    sys.exit(main())
