"""What each control of the measuring brings: the noise between fresh processes with and without it.

    python -m benchmarks.noise [PAIRS]

Pairs of fresh processes of one training step (the Transformer's, size nano) are taken with all
controls and with one of them off, in rounds over all of these, so that what drifts on the machine
meets them alike. Printed are the step's median time, the coefficient of variation of processes each
on its own, and of the ratio of two that take turns (over the root of two, so that both stand side
by side): the gain of turns is the one over the other, in every row. The last column is the second
without what single odd pairs bring.
"""

import copy
import math
import secrets
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.ab.duel import timed_in
from bench.ab.sample import Side, plan, take_pair
from bench.console import make_console
from bench.machine.processor import cores
from bench.machine.variables import ALLOCATOR, SPIN
from bench.report.sheet import Entry, Sheet, show
from bench.selftest.pool import Pair
from bench.selftest.summary import REDUCTIONS, percent, variation

ROOT = Path(__file__).resolve().parents[1]
CELL = ["model=transformer", "task=text", "scenario=train"]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
Request = dict[str, Any]
Variables = Mapping[str, str | None]


def _as_it_is(request: Request) -> Request:
    return request


def _without_warm_up(request: Request) -> Request:
    changed = copy.deepcopy(request)
    changed["config"]["suite"]["measure"]["warmup"] = 0
    return changed


def _threads_free(request: Request) -> Request:
    changed = copy.deepcopy(request)
    changed["config"]["threads"] = None
    return changed


def _no_variables() -> Variables:
    return {}


def _any_layout() -> Variables:
    """Hash seed and the size of the environment as users' shells have them: never the same."""
    return {"PYTHONHASHSEED": None, "PADDING": "x" * secrets.randbelow(4096)}


@dataclass(frozen=True)
class Variant:
    """Controls as they are, or with one of them off: a change of the cell or of its variables."""

    name: str
    request: Callable[[Request], Request] = _as_it_is
    variables: Callable[[], Variables] = _no_variables
    pairs: list[Pair] = field(default_factory=list)


def variants() -> list[Variant]:
    """All controls, then each of them off."""
    return [
        Variant("all controls"),
        Variant("allocator as the system has it", variables=lambda: dict.fromkeys(ALLOCATOR)),
        Variant(
            "threads left to the libraries", _threads_free,
            lambda: dict.fromkeys(THREAD_VARIABLES),
        ),
        Variant("twice as many threads as cores", _threads_free,
                lambda: dict.fromkeys(THREAD_VARIABLES, str(2 * cores()))),
        Variant("OpenMP's threads spin on", variables=lambda: dict.fromkeys(SPIN)),
        Variant("layout left to chance", variables=_any_layout),
        Variant("no warm-up", _without_warm_up),
    ]  # fmt: skip


def main() -> None:
    """Take the pairs and print what each control brings."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    (request,) = plan(Side("noise", ROOT), CELL)
    found = variants()
    for number in range(pairs):
        for variant in found:
            variables = variant.variables()
            side = Side(variant.name, ROOT, variables=variables)
            asked = variant.request(request)
            samples = take_pair((side, side), (asked, asked), 600, second_leads=number % 2 == 1)
            for sample in samples:
                if not sample.ok:
                    sys.exit(f"{variant.name}: {sample.payload.get('reason')}")
            ((_, plain),) = timed_in("", samples[0].payload).items()
            ((_, other),) = timed_in("", samples[1].payload).items()
            variant.pairs.append(Pair(0.0, plain, other, samples[0].wall_s))
        print(f"round {number + 1} of {pairs}", file=sys.stderr, flush=True)
    show(_sheet(found), make_console())


def _sheet(found: list[Variant]) -> Sheet:
    rows = []
    for variant in found:
        alone, turns = variation(variant.pairs, REDUCTIONS["median"])
        medians = [statistics.median(pair.plain) for pair in variant.pairs]
        typical = 1e3 * statistics.median(medians)
        rows.append(
            [Entry(variant.name), Entry(len(variant.pairs)), Entry(typical, f"{typical:.2f}"),
             percent(alone), percent(turns), percent(_robust(variant.pairs))]
        )  # fmt: skip
    return Sheet(
        "Noise between fresh processes, with each control off",
        ["controls", "pairs", "ms a step", "CV of processes", "CV in turns", "MAD in turns"],
        rows,
    )


def _robust(pairs: list[Pair]) -> float:
    """The spread of a process in turns by the median absolute deviation of log ratios.

    Of normal noise it is the coefficient of variation; one odd pair does not move it.
    """
    changes = [math.log(statistics.median(p.other) / statistics.median(p.plain)) for p in pairs]
    middle = statistics.median(changes)
    return 1.4826 * statistics.median(abs(change - middle) for change in changes) / 2**0.5


if __name__ == "__main__":
    main()
