"""What a history says of a series: its changes, its end against the previous and the pinned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.report.compare.cells import circumstances, differences
from bench.report.compare.floors import Floors
from bench.report.history.changes import Change, changes, floor_of, share_of_p
from bench.report.history.series import Series
from bench.report.history.steps import Pair, Step, apart, previous, since, steps
from bench.report.history.timeline import Commit


@dataclass(frozen=True)
class Pin:
    """The pinned release: a commit of the history, or series of its own from another folder.

    `commit` is None where a folder's commit has no place among those of the history.
    """

    label: str
    commit: Commit | None
    folder: Mapping[tuple[str, str], Series] | None = None

    def place(self, series: Series) -> int | None:
        """Where the pinned commit stands in the series."""
        if self.commit is None or self.folder is not None:
            return None
        keys = [point.commit.key for point in series.points]
        return keys.index(self.commit.key) if self.commit.key in keys else None

    def accepts(self, commit: Commit) -> bool:
        """Whether the commit is the pinned one or older: what it changed was released."""
        return self.commit is not None and commit <= self.commit


@dataclass(frozen=True)
class Judged:
    """A series with all that is said of it; `at` is the place of the pinned among its points.

    `stale`: it has no point at the newest commit of the report, which then says nothing of it.
    """

    series: Series
    changes: tuple[Change, ...] = ()
    previous: Step | None = None
    pinned: Step | None = None
    at: int | None = None
    obstacle: str | None = None  # why the pinned one must not be compared
    stale: bool = False


def judge_all(
    series: Sequence[Series], pin: Pin | None = None, *,
    floors: Floors | None = None, newest: Commit | None = None,
) -> list[Judged]:  # fmt: skip
    """Everything about every series; those that are not the newest have their changes only.

    A series that ends before the commit `newest` (default: the last one of all series) is not held
    against its previous commit: what an old commit did was told when it was the newest.
    """
    p, known = share_of_p(series), floors or Floors()
    end = newest or max((one.last.commit for one in series), default=None)
    stale = {one: one.last.commit != end for one in series}
    found = {one: tuple(changes(one, floor_of(one, known), p)) for one in series}
    pairs: dict[tuple[Series, str], Pair] = {}
    for one in series:
        if one.since is not None:
            continue
        before = None if stale[one] else previous(one, found[one])
        for which, pair in (("previous", before), ("pinned", _pinned(one, found[one], pin))):
            if pair is not None:
                pairs[one, which] = pair
    judged = steps(pairs, known)
    return [
        Judged(
            one, found[one], judged.get((one, "previous")), judged.get((one, "pinned")),
            pin.place(one) if pin else None, _obstacle(one, series, pin), stale[one],
        )
        for one in series
    ]  # fmt: skip


def _pinned(series: Series, found: Sequence[Change], pin: Pin | None) -> Pair | None:
    if pin is None or _obstacle(series, (), pin):
        return None
    if pin.folder is not None:
        apart_from = pin.folder.get((series.cell, series.metric))
        return apart(series, found, apart_from.last) if apart_from else None
    at = pin.place(series)
    return None if at is None else since(series, found, at)


def _obstacle(series: Series, others: Sequence[Series], pin: Pin | None) -> str | None:
    """Why the pinned release of this newest series is not comparable with it, or None."""
    if pin is None or series.since is not None:
        return None
    if pin.folder is not None:
        pinned = pin.folder.get((series.cell, series.metric))
        if pinned is None:
            return None
        return differences(circumstances(pinned.record), circumstances(series.record))
    if pin.place(series) is not None:
        return None
    earlier = (
        one for one in others
        if (one.cell, one.metric) == (series.cell, series.metric) and pin.place(one) is not None
    )  # fmt: skip
    return next((one.since for one in earlier), None)
