"""Findings of base against head, from records alone."""

from collections.abc import Iterable, Sequence

from bench.report.compare.cells import Matched, Side, by_process, match, obstacle
from bench.report.compare.floors import Floors
from bench.report.compare.metrics import exact, of_cell, score, timed
from bench.report.compare.scores import BySeed, judge_scores
from bench.report.compare.statistics import WITHIN, Judgement, judge, judge_exact
from bench.report.compare.verdict import Finding, gravest_first
from bench.store.record import Record

Judged = dict[tuple[str, str], Judgement]  # by cell and metric


def compare(
    base: Sequence[Record],
    head: Sequence[Record],
    *,
    floors: Floors | None = None,
    within: float = WITHIN,
    times: Judged | None = None,
) -> list[Finding]:
    """Every finding, the gravest first.

    `times` are judgements by cell and metric of samples that were taken in turns and judged on the
    way; without them the times of the records are judged here, once, as independent processes.
    """
    cells = match(base, head)
    comparable = [
        cell for cell in cells if cell.base.good and cell.head.good and not obstacle(cell)
    ]
    if times is None:
        times = _times(comparable, floors or Floors(), within)
    scores = _scores(comparable)
    found: list[Finding] = []
    for cell in cells:
        if cell in comparable:
            found += [*_failures(cell), *_of_cell(cell, times, scores)]
        elif (whole := _without_figures(cell)) is not None:
            found.append(whole)
    return gravest_first(found)


def _times(cells: Iterable[Matched], floors: Floors, within: float) -> Judged:
    """All times of all cells, judged together so that the error is that of the whole comparison."""
    pairs, known = {}, {}
    names: dict[str, tuple[str, str]] = {}
    for cell in cells:
        base, head = (by_process(side.good) for side in (cell.base, cell.head))
        for metric in base.keys() & head.keys():
            name = of_cell(cell.name, metric)
            names[name] = cell.name, metric
            pairs[name] = base[metric], head[metric]
            known[name] = floors.of(cell.base.machine, name)
    judged = judge(pairs, floors=known, within=within)
    return {names[name]: judgement for name, judgement in judged.items()}


def _without_figures(cell: Matched) -> Finding | None:
    """The finding on a cell that one side has alone, that failed, or that was measured otherwise.

    None where both sides say alike that there is no such cell.
    """
    base, head = cell.base, cell.head
    if not base.records:
        verdict, why = "new", "base has no record of it"
    elif not head.records:
        verdict, why = "not comparable", "is gone: head has no record of it"
    elif base.good and head.good:
        verdict, why = "not comparable", f"was not measured alike ({obstacle(cell)})"
    elif base.good:
        verdict, why = "worse", f"ran before and {_ended(head)}"
    elif head.good:
        verdict, why = "new", f"runs now; base {_ended(base)}"
    elif base.status == head.status == "unsupported":
        return None
    else:
        verdict = "same" if base.status == head.status else "not comparable"
        why = f"has no result: base {_ended(base)}; head {_ended(head)}"
    return Finding(cell.name, "result", verdict, f"{cell.name} {why}")


def _ended(side: Side) -> str:
    """How a side without a result ended."""
    word = "failed" if side.status == "failed" else "is unsupported"
    return f"{word}: {side.records[0].get('reason')}"


def _failures(cell: Matched) -> list[Finding]:
    """A head of which some processes fail, where none of base does, has got worse."""
    base, head = cell.base.failed, cell.head.failed
    if base or not head:
        return []
    said = f"failed in {len(head)} of {len(cell.head.records)} processes: {head[0].get('reason')}"
    return [Finding(cell.name, "result", "worse", f"{cell.name} {said}")]


def _of_cell(cell: Matched, times: Judged, scores: Judged) -> list[Finding]:
    """What both sides state, by metric, and what one of them states alone."""
    found = [
        _finding(cell, metric, judgement, "s")
        for (name, metric), judgement in times.items()
        if name == cell.name
    ]
    for (name, metric), judgement in scores.items():
        if name == cell.name:
            found.append(_finding(cell, metric, judgement, metric))
    return [*found, *_exact(cell), *_alone(cell)]


def _alone(cell: Matched) -> list[Finding]:
    """Metrics of one side: what vanished cannot be compared, what came is new."""
    base, head = (_metrics(side) for side in (cell.base, cell.head))
    gone = [
        Finding(
            cell.name, metric, "not comparable",
            f"{cell.name}, {metric}: base states it, head does not",
        )
        for metric in base if metric not in head
    ]  # fmt: skip
    new = [
        Finding(cell.name, metric, "new", f"{cell.name}, {metric}: head alone states it")
        for metric in head if metric not in base
    ]  # fmt: skip
    return gone + new


def _metrics(side: Side) -> dict[str, None]:
    """The names of everything that a side states, in order."""
    found: dict[str, None] = {}
    for record in side.good:
        named = score(record)
        found |= dict.fromkeys((*timed(record), *exact(record), *([named[0]] if named else [])))
    return found


def _exact(cell: Matched) -> list[Finding]:
    base, head = (exact(side.good[0]) for side in (cell.base, cell.head))
    return [
        _finding(cell, metric, judge_exact(base[metric], head[metric]), "exact")
        for metric in base
        if metric in head
    ]


def _scores(cells: Iterable[Matched]) -> Judged:
    """The scores of all cells by paired seeds, judged together."""
    pairs: dict[str, tuple[BySeed, BySeed, str]] = {}
    names: dict[str, tuple[str, str]] = {}
    for cell in cells:
        base, head = (_by_seed(side) for side in (cell.base, cell.head))
        for metric in base.keys() & head.keys():
            better, before = base[metric]
            name = of_cell(cell.name, metric)
            names[name] = cell.name, metric
            pairs[name] = before, head[metric][1], better
    return {names[name]: judgement for name, judgement in judge_scores(pairs).items()}


def _by_seed(side: Side) -> dict[str, tuple[str, dict[int, float]]]:
    """The better direction and the value of each seed, by the name of the score."""
    found: dict[str, tuple[str, dict[int, float]]] = {}
    for record in reversed(side.good):  # the newest of a seed wins
        if (named := score(record)) is not None:
            metric, better, value = named
            found.setdefault(metric, (better, {}))[1][int(record["cell"]["seed"])] = value
    return found


def _finding(cell: Matched, metric: str, found: Judgement, unit: str) -> Finding:
    return Finding(
        cell.name, metric, found.verdict, f"{cell.name}, {metric}: {found.why}", unit, found.base,
        found.head, found.ratio, found.low, found.high, found.p, found.n_base, found.n_head,
        found.smallest,
    )  # fmt: skip
