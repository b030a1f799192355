"""Records as series: order, repetitions, and what may not be compared."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench.errors import BadInput
from bench.report.history.series import Series, build
from bench.report.history.timeline import Line, Timeline, first_parents, resolve
from bench.store import Record
from tests.factories import make_record
from tests.report.history.commits import STEP, at, commit, git, repository, scored, step


def series(records: list[Record], line: dict[str, Line]) -> list[Series]:
    return build(records, Timeline(records, line, "repo"))


def line_of(*commits: str) -> dict[str, Line]:
    return {name: Line(place, "2026-01-01", name) for place, name in enumerate(commits)}


def labels(one: Series) -> list[str]:
    return [point.commit.label for point in one.points]


def of(found: list[Series], metric: str) -> list[Series]:
    return [one for one in found if one.metric == metric]


def test_the_first_parent_line_leaves_branches_out(tmp_path: Path) -> None:
    first, second = repository(tmp_path, 2)
    git(tmp_path, "switch", "--quiet", "--create", "side")
    side = commit(tmp_path, "on the side")
    git(tmp_path, "switch", "--quiet", "main")
    third = commit(tmp_path, "tabs\tin a subject")
    git(tmp_path, "merge", "--quiet", "--no-ff", "--message", "merged", "side")
    merged = git(tmp_path, "rev-parse", "HEAD")
    git(tmp_path, "tag", "v1", second)
    line = first_parents(tmp_path, given=True)
    assert list(line) == [first, second, third, merged]
    assert [line[name].place for name in line] == [0, 1, 2, 3]
    assert line[third].subject == "tabs\tin a subject"
    assert side not in line
    assert resolve(tmp_path, "v1") == second
    assert resolve(tmp_path, "v2") is None


def test_a_repository_that_was_given_must_be_one(tmp_path: Path) -> None:
    assert first_parents(tmp_path, given=False) == {}
    with pytest.raises(BadInput, match=r"--repo=.* is no repository with a commit \(fatal"):
        first_parents(tmp_path, given=True)


def test_order_is_that_of_the_repository_and_not_of_time() -> None:
    records = [step("b", 2.0, created="2026-01-01T00:00:00Z"),
               step("a", 1.0, created="2026-03-01T00:00:00Z"),
               step("c", 3.0, created="2026-02-01T00:00:00Z")]  # fmt: skip
    (one,) = of(series(records, line_of("a", "b", "c")), STEP)
    assert [point.value for point in one.points] == pytest.approx([1.0, 2.0, 3.0])
    (one,) = of(series(records, {}), STEP)
    assert labels(one) == ["b", "c", "a"]


def test_commits_that_the_repository_does_not_hold_are_left_out_and_named() -> None:
    records = [step("a", 1.0), step("gone", 9.0), at(None, step("x", 5.0, source="f" * 9))]
    timeline = Timeline(records, line_of("a", "b"), "repo")
    (one,) = of(build(records, timeline), STEP)
    assert labels(one) == ["a"]
    assert "2 commits (gone, source fffffff)" in timeline.notes[1]


def test_uncommitted_changes_stand_after_their_commit() -> None:
    records = [at("a", step("a", 5.0), dirty=True), step("b", 2.0), step("a", 1.0)]
    (one,) = of(series(records, line_of("a", "b")), STEP)
    assert labels(one) == ["a", "a+", "b"]


def test_repetitions_of_a_commit_are_one_point_with_an_interval() -> None:
    values = [1.0, 1.1, 1.3]
    records = [step("a", value, layout=str(value)) for value in values]
    (one,) = of(series(records, line_of("a")), STEP)
    (point,) = one.points
    logs = np.log(values)
    low, high = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    assert point.n == 3
    assert point.value == pytest.approx(np.exp(logs.mean()))
    assert (point.low, point.high) == pytest.approx((np.exp(low), np.exp(high)))


def test_one_process_has_the_interval_of_its_record() -> None:
    made = step("a", 1.0)
    made["timing"] |= {"ci_low_s": 0.9, "ci_high_s": 1.2}  # type: ignore[typeddict-item]
    (point,) = of(series([made], line_of("a")), STEP)[0].points
    assert (point.low, point.high) == (0.9, 1.2)


def test_scores_are_means_over_the_seeds_that_all_commits_have() -> None:
    records = [scored("a", 2.0, 0), scored("a", 4.0, 1), scored("b", 2.1, 0), scored("b", 4.1, 1),
               scored("c", 4.2, 1), scored("c", 9.0, 2)]  # fmt: skip
    (one,) = of(series(records, line_of("a", "b", "c")), "bits_per_byte")
    assert [point.value for point in one.points] == pytest.approx([4.0, 4.1, 4.2])
    apart = [*records, scored("d", 7.0, 5)]
    old, new = of(series(apart, line_of("a", "b", "c", "d")), "bits_per_byte")
    assert (labels(old), labels(new)) == (["a", "b", "c"], ["d"])
    assert (old.since, new.since) == ("no seed was run in all of it", None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"machine": "other"}, "machine: machine-1 and other"),
     ({"task_version": 2}, "task version: 1 and 2"),
     ({"backend": "mamba_ssm"}, "backend: torch and mamba_ssm")],
)  # fmt: skip
def test_what_was_not_measured_alike_begins_a_series(
    changes: dict[str, object], words: str
) -> None:
    records = [step("a", 1.0), step("b", 1.0), step("c", 2.0, **changes), step("d", 2.0, **changes)]
    old, new = of(series(records, line_of(*"abcd")), STEP)
    assert (labels(old), labels(new)) == (["a", "b"], ["c", "d"])
    assert old.since is not None
    assert words in old.since
    assert new.since is None


def test_another_dtype_is_another_cell() -> None:
    records = [step("a", 1.0), step("b", 1.0, dtype="bfloat16")]
    assert len({one.cell for one in of(series(records, line_of("a", "b")), STEP)}) == 2


def test_two_machines_in_turns_are_two_series_and_not_many() -> None:
    records = [
        step(name, 1.0, machine=f"m{place % 2}", created=f"2026-01-0{place + 1}T00:00:00Z")
        for place, name in enumerate("abcdef")
    ]
    old, new = of(series(records, line_of(*"abcdef")), STEP)
    assert (labels(old), labels(new)) == (["a", "c", "e"], ["b", "d", "f"])


def test_records_that_failed_are_no_points() -> None:
    failed = at("b", make_record(scenario="train", status="failed", reason="out of memory"))
    (one,) = of(series([step("a", 1.0), failed], line_of("a", "b")), STEP)
    assert labels(one) == ["a"]
