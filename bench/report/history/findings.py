"""What a history says, in the findings of a comparison: its verdicts, files and exit codes."""

from collections.abc import Iterable, Sequence

from bench.report.compare.cells import name_of
from bench.report.compare.verdict import PINNED, Finding, gravest_first
from bench.report.formats import percent
from bench.report.history.changes import Change
from bench.report.history.judge import Judged, Pin
from bench.report.history.series import Series
from bench.report.history.steps import Step
from bench.report.history.timeline import Timeline
from bench.store import Record


def findings(
    judged: Sequence[Judged], records: Iterable[Record], timeline: Timeline, pin: Pin | None = None
) -> list[Finding]:
    """The gravest first: the last step, that since the pinned release, and changes after it.

    A finding of a metric's own name is that against the previous commit.
    """
    found = [*_failed(records, timeline), *_starts([one.series for one in judged])]
    for one in judged:
        if one.series.since is None:
            found += of_series(one, pin)
    return gravest_first(found)


def of_series(one: Judged, pin: Pin | None) -> list[Finding]:
    """The findings of a series that is the newest of its cell and metric."""
    series = one.series
    found = []
    if one.previous:
        found.append(_step(series, series.metric, one.previous, "the previous commit"))
    if one.pinned and pin:
        which = f"the pinned {pin.label}"
        found.append(_step(series, f"{series.metric} {PINNED}", one.pinned, which))
    if one.obstacle:
        why = f"was not measured like the pinned ({one.obstacle})"
        reason = f"{series.cell}, {series.metric} {why}"
        found.append(Finding(series.cell, f"{series.metric} {PINNED}", "not comparable", reason))
    found += [
        _change(series, change)
        for change in one.changes
        if not (pin and pin.accepts(series.points[change.place].commit))
    ]
    return found


def _step(series: Series, metric: str, step: Step, which: str) -> Finding:
    told = step.judgement
    at = "" if which.endswith(step.reference.label) else f" ({step.reference.label})"
    reason = f"{series.cell}, {series.metric} against {which}{at}"
    return Finding(
        series.cell, metric, told.verdict, f"{reason}: {told.why}", series.unit, step.base,
        step.head, told.ratio, told.low, told.high, told.p, told.n_base, told.n_head, told.smallest,
    )  # fmt: skip


def _change(series: Series, change: Change) -> Finding:
    """A change that did not last is told, and is the same."""
    commit = series.points[change.place].commit
    said = (
        f"{percent(change.size)} at {commit.label}" if change.before else f"new at {commit.label}"
    )
    if commit.subject:
        said += f" ({commit.subject})"
    said += "" if change.p is None else f", p {change.p:.1g}"
    said += "" if change.lasting else "; undone since"
    return Finding(
        series.cell, f"{series.metric} (at {commit.label})",
        change.verdict if change.lasting else "same", f"{series.cell}, {series.metric}: {said}",
        series.unit, change.before, change.after, change.after / change.before
        if change.before else None, p=change.p,
    )  # fmt: skip


def _starts(series: Sequence[Series]) -> list[Finding]:
    """Cells that begin with their last commit: new ones, or not comparable with those before."""
    older = {(one.cell, one.metric): one for one in series if one.since is not None}
    longest: dict[str, int] = {}
    for one in series:
        longest[one.cell] = max(longest.get(one.cell, 0), len(one.points))
    found: dict[str, Finding] = {}
    for one in series:
        if one.since is not None or len(one.points) > 1:
            continue
        before = older.get((one.cell, one.metric))
        at = f"{one.cell} at {one.last.commit.label}"
        if before is None:
            if longest[one.cell] > 1:
                continue  # a metric that records of this cell did not have before
            made = Finding(one.cell, "result", "new", f"{at} has no commit before it")
        else:
            why = f"was not measured like {before.last.commit.label} ({before.since})"
            made = Finding(one.cell, "result", "not comparable", f"{at} {why}")
        found.setdefault(one.cell, made)
    return list(found.values())


def _failed(records: Iterable[Record], timeline: Timeline) -> list[Finding]:
    """Cells that ran before, and of which every record of their last commit failed."""
    cells: dict[str, list[Record]] = {}
    for record in records:
        if timeline.commit(record) is not None:
            cells.setdefault(name_of(record), []).append(record)
    found = []
    for cell, made in cells.items():
        commits = {record["id"]: timeline.commit(record) for record in made}
        last = max(commit for commit in commits.values() if commit is not None)
        newest = [record for record in made if commits[record["id"]] == last]
        ran = any(record["status"] == "ok" for record in made)
        if ran and all(record["status"] != "ok" for record in newest):
            why = f"ran before and failed at {last.label}: {newest[-1].get('reason')}"
            found.append(Finding(cell, "result", "worse", f"{cell} {why}"))
    return found
