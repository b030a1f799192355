"""What a history says, in the findings of a comparison: its verdicts, files and exit codes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bench.report.compare.cells import name_of
from bench.report.compare.verdict import BASE, CHANGE, PINNED, Finding, gravest_first
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

    What a finding is `against` as base is the previous commit. Of the newest commit alone is told
    which cells got slower, begin or fail there: what older commits did was told then.
    """
    found = [*_failed(records, timeline), *_starts(judged)]
    for one in judged:
        if one.series.since is None:
            found += of_series(one, pin)
    return gravest_first(found)


def of_series(one: Judged, pin: Pin | None) -> list[Finding]:
    """The findings of a series that is the newest of its cell and metric."""
    series = one.series
    found = []
    if one.previous:
        found.append(_step(series, BASE, one.previous, "the previous commit"))
    if one.pinned and pin:
        step = _step(series, PINNED, one.pinned, f"the pinned {pin.label}")
        old = f"; last measured at {series.last.commit.label}" if one.stale else ""
        found.append(replace(step, reason=step.reason + old))
    if one.obstacle:
        why = f"was not measured like the pinned ({one.obstacle})"
        reason = f"{series.cell}, {series.metric} {why}"
        found.append(Finding(series.cell, series.metric, "not comparable", reason, against=PINNED))
    found += [
        _change(series, change)
        for change in one.changes
        if not (pin and pin.accepts(series.points[change.place].commit))
    ]
    return found


def _step(series: Series, against: str, step: Step, which: str) -> Finding:
    told = step.judgement
    at = "" if which.endswith(step.reference.label) else f" ({step.reference.label})"
    reason = f"{series.cell}, {series.metric} against {which}{at}"
    return Finding(
        series.cell, series.metric, told.verdict, f"{reason}: {told.why}", series.unit, step.base,
        step.head, told.ratio, told.low, told.high, told.p, told.n_base, told.n_head, told.smallest,
        against,
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
        series.cell, series.metric, change.verdict if change.lasting else "same",
        f"{series.cell}, {series.metric}: {said}", series.unit, change.before, change.after,
        change.after / change.before if change.before else None, p=change.p, against=CHANGE,
        at=commit.label,
    )  # fmt: skip


def _starts(judged: Sequence[Judged]) -> list[Finding]:
    """Cells that begin with the newest commit: new ones, or not comparable with those before."""
    series = [one.series for one in judged]
    older = {(one.cell, one.metric): one for one in series if one.since is not None}
    longest: dict[str, int] = {}
    for one in series:
        longest[one.cell] = max(longest.get(one.cell, 0), len(one.points))
    found: dict[str, Finding] = {}
    for one in (entry.series for entry in judged if not entry.stale):
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
    """Cells that ran before, and of which every record of the newest commit failed."""
    cells: dict[str, list[Record]] = {}
    for record in records:
        if timeline.commit(record) is not None:
            cells.setdefault(name_of(record), []).append(record)
    if (last := timeline.newest) is None:
        return []
    found = []
    for cell, made in cells.items():
        newest = [record for record in made if timeline.commit(record) == last]
        ran = any(record["status"] == "ok" for record in made)
        if ran and newest and all(record["status"] != "ok" for record in newest):
            why = f"ran before and failed at {last.label}: {newest[-1].get('reason')}"
            found.append(Finding(cell, "result", "worse", f"{cell} {why}"))
    return found
