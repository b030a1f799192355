"""Real comparisons, as `bench.ab` runs them, beside those drawn from the pool."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.ab.duel import Contest, Duel
from bench.ab.sample import Side, plan
from bench.constants import ROOT
from bench.report.compare.cells import name_of
from bench.report.sheet import Entry, Sheet
from bench.selftest.pool import SLOWDOWNS
from bench.selftest.summary import kind, seconds

Named = tuple[str, str]  # a model and a scenario


def requests(cells: Sequence[Named]) -> dict[str, dict[str, Any]]:
    """The request of each cell by its name, on `text`."""
    side = Side("selftest", ROOT)
    found = {}
    for model, scenario in cells:
        (cell,) = plan(side, [f"model={model}", "task=text", f"scenario={scenario}"])
        found[name_of({"cell": cell})] = cell
    return found


def compare(
    cell: Named, times: int, floors: Mapping[str, float], say: Callable[[str], None]
) -> Sheet:
    """`times` comparisons of each kind: of equals, and of heads slowed down."""

    def floor(metric: str) -> float:
        return floors.get(metric, 0.0)

    ((name, request),) = requests([cell]).items()
    rows = []
    for slowdown in SLOWDOWNS:
        for _ in range(times):
            sides = (Side("base", ROOT), Side("head", ROOT, slowdown=slowdown))
            rule, ending = Duel(sides, [Contest(name, (request, request))], floor, say=say).run()
            for metric, judgement in rule.verdicts().items():
                rows.append(
                    [kind(slowdown), Entry(metric), Entry(judgement.verdict),
                     Entry(judgement.why), Entry(ending.rounds), seconds(ending.seconds)]
                )  # fmt: skip
    heads = ["head", "metric", "verdict", "why", "processes a side", "s"]
    return Sheet("Live comparisons", heads, rows)
